"""Color: any mode of Pillow as RGB of 8 bits a channel.

Policy: transparent parts lie on white, by an alpha channel, by a palette or by one transparent color. A palette's
colors are its own; a pixel outside of its palette makes the image unreadable. Gray becomes three equal channels. Values
of 16 bits are divided by 257, or taken as they are where none exceeds 255 (some programs store so); of color with 16
bits the high byte counts. CMYK becomes RGB as Pillow does it. Color profiles and gamma are not applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


WHITE = 255


def rgb(image: Image.Image, clear: int | None = None) -> Image.Image:
    """Return a Pillow image of any mode as RGB: transparent parts on white, 16 bits as 8.

    Args:
        image: A Pillow image.
        clear: For gray images: the one value that is transparent. Default None.
    """
    from PIL import Image

    if clear is not None or image.mode.startswith(("I", "F")):
        return Image.fromarray(_gray(image, clear)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def _gray(image: Image.Image, clear: int | None) -> np.ndarray:
    values = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"), np.float32)
    deep = image.mode.startswith("I") and values.max(initial=0) > 255
    gray = np.clip(np.rint(values / 257 if deep else values), 0, 255).astype(np.uint8)
    return gray if clear is None else np.where(values == clear, np.uint8(WHITE), gray)

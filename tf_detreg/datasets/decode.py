"""Any picture file → uint8 RGB of one size. What cannot be read is counted and named, never guessed at."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from tf_detreg.datasets.pixels import Size, height_width
from tf_detreg.images.formats import UnreadableImage, open_image

logger = logging.getLogger(__name__)

ORIENTATION = 0x0112  # the EXIF tag
DRAWS = 4  # random numbers that a crop needs


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the picture, cut before it is resized (so nothing is enlarged twice).

    Args:
        scale: least and greatest share of the picture's area. Defaults to (0.16, 1.0).
        ratio: least and greatest width / height. Defaults to (3 / 4, 4 / 3).

    Reference: Szegedy et al., "Going deeper with convolutions", CVPR 2015.

    Example:
    >>> import numpy as np
    >>> from tf_detreg.datasets import RandomCrop
    >>> left, top, right, bottom = RandomCrop().box(640, 480, np.random.default_rng(0))
    >>> 0 <= left < right <= 640 and 0 <= top < bottom <= 480
    True
    """

    scale: tuple[float, float] = (0.16, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"`scale` must be (least, greatest) shares in (0, 1]; received {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"`ratio` must be (least, greatest) positive width/height; received {self.ratio}.")

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part to keep."""
        return self.box_from(width, height, rng.random(DRAWS))

    def box_from(self, width: int, height: int, draws: np.ndarray) -> tuple[float, float, float, float]:
        """`box`, from numbers in [0, 1) that were drawn before: `draws`, (4,)."""
        area, ratio, x, y = map(float, draws)
        area = _between(area, *self.scale) * width * height
        ratio = math.exp(_between(ratio, *map(math.log, self.ratio)))
        w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        left, top = x * (width - w), y * (height - h)
        return left, top, min(left + w, width), min(top + h, height)


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def centre_box(width: int, height: int, target: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred part with the proportions of `target` (height, width)."""
    scale = min(width / target[1], height / target[0])
    w, h = target[1] * scale, target[0] * scale
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def place(width: int, height: int, target: tuple[int, int], crop: RandomCrop | None, draws: np.ndarray):
    """(left, top, right, bottom) of the part of a picture that becomes (height, width) `target`."""
    return crop.box_from(width, height, draws) if crop else centre_box(width, height, target)


def decode(
    source: str | os.PathLike | bytes,
    size: Size,
    crop: RandomCrop | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Reads one picture.

    Turned as its EXIF says, transparent parts on white, grey and CMYK as RGB, 16 bits as 8; cropped (in the centre
    unless `crop` says otherwise) to the proportions of `size` and resized with antialiasing.

    Args:
        source: file name, or the bytes of a file.
        size: side or (height, width) of the result.
        crop: a random crop instead of the central one.
        rng: what the random crop draws from; a fresh generator by default.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UnreadableImage: with the reason in its text.
        ValueError: for a size that is none.
    """
    source = source if isinstance(source, bytes) else os.fspath(source)
    draws = (rng or np.random.default_rng()).random(DRAWS) if crop else None
    return _decode(source, height_width(size), crop, draws)


def _decode(source, size, crop, draws) -> np.ndarray:
    try:
        with open_image(source) as image:
            return _fit(image, size, crop, draws)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they like on broken files
        name = "the given bytes" if isinstance(source, bytes) else source
        raise UnreadableImage(f"{name}: {type(error).__name__}: {error}") from error


def _fit(image, size, crop, draws) -> np.ndarray:
    from PIL import Image

    full = image.size
    orientation = _orientation(image)
    turned = orientation >= 5
    seen = full[::-1] if turned else full
    box = place(*seen, size, crop, draws)
    # A JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the cost, where that still leaves enough pixels.
    enough = max((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0])
    image.draft(None, (max(1, int(full[0] / enough)), max(1, int(full[1] / enough))))
    picture = rgb(image)
    if orientation > 1:
        picture = picture.transpose(_TURNS[orientation])
    sx, sy = picture.size[0] / seen[0], picture.size[1] / seen[1]
    box = (box[0] * sx, box[1] * sy, min(box[2] * sx, picture.size[0]), min(box[3] * sy, picture.size[1]))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


# PIL.Image.Transpose values, by EXIF orientation.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def _orientation(image) -> int:
    if "exif" not in image.info and "Raw profile type exif" not in image.info:
        return 1
    value = image.getexif().get(ORIENTATION, 1)
    return value if value in _TURNS else 1


def rgb(image):
    """A Pillow image of any mode as RGB: transparent parts on white, 16 bits as 8."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        if image.mode != "F":
            values = values / 257 if values.max(initial=0) > 255 else values
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


class SkipLog:
    """Counts distinct unreadable files, and stops the run when they are more than a stated share."""

    def __init__(self, total: int, share: float, what: str):
        if not 0 <= share <= 1:
            raise ValueError(f"`max_unreadable` is a share in 0..1; received {share}.")
        self.total, self.share, self.what = total, share, what
        self.reasons: dict[int, str] = {}
        self._reported = 0
        self._lock = threading.Lock()

    def add(self, index: int, reason: str) -> None:
        with self._lock:
            if index in self.reasons:
                return
            self.reasons[index] = reason
            logger.warning("Skipped an unreadable image: %s", reason)
            if len(self.reasons) > self.share * self.total:
                raise ValueError(
                    f"{len(self.reasons)} of the {self.total} images of {self.what} cannot be read, more than the "
                    f"stated share of {self.share:.1%}. Repair or remove them, or raise `max_unreadable`. "
                    f"The last one: {reason}"
                )

    def report(self) -> None:
        """Names what was skipped, once."""
        with self._lock:
            reasons = list(self.reasons.values())
            if len(reasons) == self._reported:
                return
            self._reported = len(reasons)
        shown = "\n  ".join(reasons[:20]) + ("\n  …" if len(reasons) > 20 else "")
        logger.warning("%d unreadable images of %s were skipped:\n  %s", len(reasons), self.what, shown)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")


def each(work: Callable, items: Iterable) -> list:
    """`work` of each item, on all cores."""
    return list(_pool().map(work, items))


def decode_batch(
    paths: Sequence[str],
    indices: np.ndarray,
    size: tuple[int, int],
    skips: SkipLog,
    crop: RandomCrop | None = None,
    draws: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads `paths[i]` for each i of `indices`, on all cores; `draws` (B, 4) in [0, 1) say where random crops lie.

    Returns:
        uint8 (B, height, width, 3), and a mask (B,) of those that could be read; the others are zero and in `skips`.
    """
    images = np.zeros((len(indices), *size, 3), np.uint8)
    good = np.zeros(len(indices), bool)

    def read(at: int) -> None:
        index = int(indices[at])
        if index in skips.reasons:
            return
        try:
            images[at] = _decode(paths[index], size, crop, None if draws is None else draws[at])
            good[at] = True
        except UnreadableImage as error:
            skips.add(index, str(error))

    each(read, range(len(indices)))
    return images, good

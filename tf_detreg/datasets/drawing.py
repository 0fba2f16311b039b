"""Characters as distorted pictures: what the embedded data sets are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def mask(font: Any, char: str) -> np.ndarray:
    """Return the ink of a character, uint8 (height, width)."""
    drawn = font.getmask(char)
    return np.frombuffer(bytes(drawn), np.uint8).reshape(drawn.size[::-1])


def draw(font: Any, chars: Sequence[str], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 (len(chars), size, size): dark on light, at random position, size, angle, slant and contrast.

    Args:
        font: A font of Pillow's, at `size` pixels.
        chars: What to draw, a character an image.
        size: Side of the images in pixels.
        rng: Decides all that is random.
    """
    from PIL import Image

    masks = [mask(font, char) for char in chars]
    maps = _placements(np.array([drawn.shape for drawn in masks]), size, rng).tolist()
    ink = np.empty((len(chars), size, size), np.float32)
    for row, (drawn, placement) in enumerate(zip(masks, maps, strict=True)):
        bordered = Image.new("L", (drawn.shape[1] + 2, drawn.shape[0] + 2))
        bordered.paste(Image.fromarray(drawn), (1, 1))
        # Placed at twice the size and then halved, which smooths it.
        canvas = bordered.transform((2 * size, 2 * size), Image.Transform.AFFINE, placement, Image.Resampling.BILINEAR)
        ink[row] = np.asarray(canvas.reduce(2))
    dark, light = (rng.uniform(*span, (len(chars), 1, 1)).astype(np.float32) for span in ((0, 70), (180, 255)))
    ink = light + (dark - light) * (ink / 255) + 6 * rng.standard_normal(ink.shape, np.float32)
    return np.clip(np.rint(ink), 0, 255).astype(np.uint8)


def _placements(shapes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return affine maps (n, 6) from the doubled canvas to glyphs of `shapes` (n, 2) with a border of one pixel."""
    n = len(shapes)
    angle, slant = np.radians(rng.uniform(-12, 12, n)), rng.uniform(-0.12, 0.12, n)
    # A wide or tall glyph is made to fit; the others keep their size relative to each other.
    fit = np.minimum(1.3, 1.6 * size / shapes.max(1))
    zoom = fit[:, None] * np.exp(rng.uniform(np.log(0.8), np.log(1.15), (n, 2)))
    center = size + rng.uniform(-0.1, 0.1, (n, 2)) * 2 * size
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(n, 2, 2)
    shear = np.zeros((n, 2, 2)) + np.eye(2)
    shear[:, 0, 1] = slant
    inverse = np.linalg.inv(turn @ shear * zoom[:, None, :])
    offset = shapes[:, ::-1] / 2 + 1 - (inverse @ center[..., None])[..., 0]
    return np.concatenate([inverse, offset[..., None]], axis=2).reshape(n, 6)

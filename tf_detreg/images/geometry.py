"""Sizes, and which part of an image becomes the pixels that a model sees.

Policy: of an image the largest centered part with the proportions of the result is kept, or a random part in training,
and resized with antialiasing (Pillow's bilinear filter). A JPEG is first decoded at 1/2, 1/4 or 1/8 of its size where
that leaves enough pixels. Boxes never leave the image: they are computed from whole numbers by one division.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tf_detreg.checks import is_finite

Size = int | tuple[int, int]
Box = tuple[float, float, float, float]

DRAWS = 4  # random numbers that a crop needs


def height_width(image_size: Size) -> tuple[int, int]:
    """Return `32` or `(32, 48)` as (height, width).

    Raises:
        ValueError: If it is neither.

    Example:
        >>> height_width(32)
        (32, 32)
    """
    pair = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise ValueError(f"`image_size` must be a positive integer or (height, width); received {image_size!r}.")
    return int(pair[0]), int(pair[1])


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the image, cut before it is resized (so nothing is enlarged twice).

    Args:
        scale: Least and greatest share of the image's area. Default (0.16, 1.0).
        ratio: Least and greatest width / height. Default (3 / 4, 4 / 3).

    Reference: Szegedy et al., "Going deeper with convolutions", CVPR 2015.

    Example:
        >>> left, top, right, bottom = RandomCrop().box(640, 480, np.random.default_rng(0))
        >>> 0 <= left < right <= 640 and 0 <= top < bottom <= 480
        True
    """

    scale: tuple[float, float] = (0.16, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not _is_range(self.scale) or self.scale[1] > 1:
            raise ValueError(f"`scale` must be (least, greatest) shares in (0, 1]; received {self.scale}.")
        if not _is_range(self.ratio):
            raise ValueError(f"`ratio` must be (least, greatest) positive width/height; received {self.ratio}.")

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """Return (left, top, right, bottom) of the part to keep."""
        return self.box_from(width, height, rng.random(DRAWS))

    def box_from(self, width: int, height: int, draws: np.ndarray) -> Box:
        """Return `box`, from numbers in [0, 1) that were drawn before: `draws`, (4,)."""
        area, ratio, x, y = map(float, draws)
        area = _between(area, *self.scale) * width * height
        ratio = math.exp(_between(ratio, *map(math.log, self.ratio)))
        w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
        left, top = x * (width - w), y * (height - h)
        return left, top, min(left + w, width), min(top + h, height)


def _is_range(pair: object) -> bool:
    """Return whether this is two numbers above 0, the smaller first."""
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_finite, pair)) and 0 < pair[0] <= pair[1]


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def center_box(width: int, height: int, target: tuple[int, int]) -> Box:
    """Return the largest centered part, (left, top, right, bottom), with the proportions of `target` (height, width).

    Example:
        >>> center_box(640, 480, (224, 224))
        (80.0, 0.0, 560.0, 480.0)
    """
    rows, columns = target
    # One division of whole numbers: rounding can never carry the quotient past the side.
    w = min(width, height * columns / rows)
    h = min(height, width * rows / columns)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def part(width: int, height: int, target: tuple[int, int], crop: RandomCrop | None, draws: np.ndarray | None) -> Box:
    """Return (left, top, right, bottom) of the part of an image that becomes (height, width) `target`."""
    if crop is None:
        return center_box(width, height, target)
    if draws is None:
        raise ValueError("`draws` must hold four numbers for a random crop; received None.")
    return crop.box_from(width, height, draws)


def shrinkage(box: Box, target: tuple[int, int]) -> float:
    """Return how many pixels of a part become one of the result, along the side where they are more."""
    return max((box[2] - box[0]) / target[1], (box[3] - box[1]) / target[0])


def scaled(box: Box, seen: tuple[int, int], decoded: tuple[int, int]) -> Box:
    """Return the box of an image of `seen` (width, height) in one that was decoded smaller, at `decoded`."""
    sx, sy = decoded[0] / seen[0], decoded[1] / seen[1]
    return box[0] * sx, box[1] * sy, min(box[2] * sx, decoded[0]), min(box[3] * sy, decoded[1])

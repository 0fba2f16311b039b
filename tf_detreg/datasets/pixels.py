"""Sizes of images, and arrays of them."""

from __future__ import annotations

import numpy as np

Size = int | tuple[int, int]


def height_width(image_size: Size) -> tuple[int, int]:
    """`32` or `(32, 48)` as (height, width)."""
    pair = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise ValueError(f"`image_size` must be a positive integer or (height, width); received {image_size!r}.")
    return int(pair[0]), int(pair[1])


def three_channels(images) -> np.ndarray:
    """uint8 (N, H, W, 3); grey images stay one channel in memory, which a view shows three times."""
    images = images if isinstance(images, np.ndarray) else np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"`images` must be uint8 of shape (N, H, W, 3) or (N, H, W), values 0..255; received {images.dtype} "
            f"of shape {images.shape}."
        )
    return images if images.shape[-1] == 3 else np.broadcast_to(images, (*images.shape[:3], 3))


def is_grey_view(images: np.ndarray) -> bool:
    """Whether the three channels are one channel in memory."""
    return images.strides[-1] == 0

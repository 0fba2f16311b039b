"""Images that are in memory already, as one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def three_channels(images: ArrayLike) -> np.ndarray:
    """Return uint8 (N, H, W, 3); gray images stay one channel in memory, which a view shows three times."""
    images = images if isinstance(images, np.ndarray) else np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"`images` must be uint8 of shape (N, H, W, 3) or (N, H, W), values 0..255; received {images.dtype} "
            f"of shape {images.shape}."
        )
    return images if images.shape[-1] == 3 else np.broadcast_to(images, (*images.shape[:3], 3))


def is_gray_view(images: np.ndarray) -> bool:
    """Return whether the three channels are one channel in memory."""
    return images.strides[-1] == 0

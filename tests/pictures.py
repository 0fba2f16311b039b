"""Image files for tests."""

import io

import numpy as np
from PIL import Image


def encode(image, form="PNG", **options) -> bytes:
    """The bytes of an image file. Arrays become images first."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()

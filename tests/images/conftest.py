import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def encode():
    """`encode(image, format, **options)`: the bytes of an image file. Arrays become images first."""

    def write(image, form="PNG", **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image.astype(np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    return write

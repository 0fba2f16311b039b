"""Image files for tests."""

import io
import pathlib

import numpy as np
from PIL import Image


def encode(image, form="PNG", **options) -> bytes:
    """The bytes of an image file. Arrays become images first."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def color_photos(folder: pathlib.Path, height: int, width: int) -> pathlib.Path:
    """Write ten classes of four pictures, each class a color with noise."""
    rng = np.random.default_rng(0)
    for label in range(10):
        (folder / f"class {label}").mkdir()
        color = rng.integers(0, 256, 3)
        for number in range(4):
            pixels = np.clip(color + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class {label}" / f"{number}.png")
    return folder

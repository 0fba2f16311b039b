"""What a file's first bytes say of it."""

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode
from tf_detreg.images import UnreadableImage, decode, headers


def test_a_header_is_of_no_jpeg_unless_it_says_how_many_channels():
    assert headers.Header(3, 2).components == 0
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    for form in ("PNG", "BMP"):
        np.testing.assert_array_equal(decode(encode(pixels, form), (6, 5)), pixels)


def test_gifs_that_end_early_are_refused():
    content = encode(Image.fromarray(np.zeros((4, 4), np.uint8), "P"), "GIF")
    for length in (0, 6, 12, 13, 20, len(content) - 8):
        with pytest.raises(UnreadableImage, match="cut off"):
            headers.gif(content[:length])
    with pytest.raises(UnreadableImage, match="or has no frame"):
        headers.gif(content[:13])


def test_a_transparent_index_beyond_the_palette_is_none():
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "P")
    image.putpalette(np.arange(48, dtype=np.uint8).tobytes())
    content = bytearray(encode(image, "GIF", transparency=3))
    colors, at = headers.gif(bytes(content)).colors, content.index(b"!\xf9\x04")
    for index, found in (
        (0, 0),
        (3, 3),
        (colors - 1, colors - 1),
        (colors, None),
        (255, None if colors < 256 else 255),
    ):
        content[at + 6] = index % 256
        if index < 256:
            assert headers.gif(bytes(content)).transparent == found
    content[at + 3] = 4  # how the frame is disposed of, and that no index is transparent
    content[at + 6] = 3
    assert headers.gif(bytes(content)).transparent is None


def test_the_transparent_gray_of_a_png_is_given_as_its_pixels_are_decoded():
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 15)
    for mode, stored, found in (("L", 90, 90), ("L", 0, 0), ("1", 1, 255), ("RGB", (1, 2, 3), None), ("P", 3, None)):
        assert headers.png(encode(image.convert(mode), transparency=stored)).transparent == found, (mode, stored)
    assert headers.png(encode(image)).transparent is None

"""The codes of GIFs, which are checked before they are decoded."""

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode
from tf_detreg.images import UnreadableImage, decode, headers, lzw
from tf_detreg.images.reference import problem


def test_a_gif_may_begin_with_its_last_color():
    image = Image.fromarray(np.arange(255, 239, -1, dtype=np.uint8).reshape(4, 4), "P")
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768, dtype=np.uint8).tobytes())
    content = encode(image, "GIF")
    lzw.check_codes(content, headers.gif(content).pixels)
    assert decode(content, (4, 4)).shape == (4, 4, 3)


def test_a_gif_may_use_every_code_of_its_table(tmp_path):
    """In one color each code stands for one pixel more than the last."""
    (tmp_path / "x.gif").write_bytes(encode(Image.new("P", (2800, 2800)), "GIF"))
    assert problem(str(tmp_path / "x.gif")) is None


def compressed(*codes: int) -> bytes:
    """Codes of nine bits, as a GIF of 256 colors begins with them."""
    bits = sum(code << 9 * at for at, code in enumerate(codes))
    data = bits.to_bytes(-(-9 * len(codes) // 8), "little")
    return bytes([8, len(data)]) + data + b"\0"


def test_a_code_that_is_not_defined_yet_is_refused_wherever_it_stands():
    clear, end = 256, 257
    for good in (
        (clear, 255, end),
        (clear, 0, 258, end),
        (clear, 255, 255, 258, 259, end),
        (clear, 255, clear, 0, end),
    ):
        lzw.check_codes(compressed(*good), 0)
    for bad in ((clear, 258, end), (clear, 255, 259, end), (clear, 254, 255, 260, end), (clear, 255, clear, 258, end)):
        with pytest.raises(UnreadableImage, match="undefined code"):
            lzw.check_codes(compressed(*bad), 0)
    lzw.check_codes(compressed(clear, 7, end, 511), 0)  # nothing is read behind the end

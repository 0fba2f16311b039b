"""Small parts of the readers, quickly: what the corpus shows too, file by file, but only after it was read whole."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode
from tf_detreg.images import UnreadableImage, decode, formats, headers, lzw, orientation
from tf_detreg.images.arrays import three_channels
from tf_detreg.images.reference import problem


def exif(entries, order="<", behind=b"\0\0\0\0"):
    """An EXIF block of (tag, kind, count, four bytes of value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries) + behind


@pytest.mark.parametrize(("order", "value"), [("<", b"\6\0\0\0"), (">", b"\0\6\0\0")])
def test_an_orientation_may_end_with_its_block(order, value):
    entries = [(0x10F, 2, 4, b"abc\0"), (0x112, 3, 1, value)]
    for behind in (b"\0\0\0\0", b""):
        assert orientation.of_exif(exif(entries, order, behind)) == 6
        assert orientation.of_exif(orientation.PREFIX + exif(entries, order, behind)) == 6
        assert orientation.of_exif(2 * orientation.PREFIX + exif(entries, order, behind)) == 6
    assert orientation.of_exif(3 * orientation.PREFIX + exif(entries, order)) == 1
    for cut in range(1, 13):
        assert orientation.of_exif(exif(entries, order, b"")[:-cut]) == 1


@pytest.mark.parametrize(
    ("kind", "count", "value", "found"),
    [
        (3, 1, 8, 8),
        (3, 1, 9, 1),
        (3, 1, 0, 1),
        (4, 1, 6, 6),
        (1, 1, 5, 5),
        (3, 3, 6, 1),  # too many to stand in the entry
        (4, 2, 6, 1),
        (3, 0, 6, 1),
        (2, 1, 6, 1),  # a text
    ],
)
def test_an_orientation_is_one_small_whole_number(kind, count, value, found):
    assert orientation.of_exif(exif([(0x112, kind, count, struct.pack("<I", value))])) == found


def test_a_header_is_of_no_jpeg_unless_it_says_how_many_channels():
    assert headers.Header(3, 2).components == 0
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    for form in ("PNG", "BMP"):
        np.testing.assert_array_equal(decode(encode(pixels, form), (6, 5)), pixels)


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


def test_gifs_that_end_early_are_refused():
    content = encode(Image.fromarray(np.zeros((4, 4), np.uint8), "P"), "GIF")
    for length in (0, 6, 12, 13, 20, len(content) - 8):
        with pytest.raises(UnreadableImage, match="cut off"):
            headers.gif(content[:length])
    with pytest.raises(UnreadableImage, match="or has no frame"):
        headers.gif(content[:13])


def test_which_names_are_those_of_images():
    for name, is_one in (
        ("a.jpg", True),
        ("a.JPEG", True),
        (".a.jpg", False),
        ("._a.jpg", False),
        ("a.txt", False),
        ("a", False),
    ):
        assert formats.is_image_name(name) == is_one, name


def test_images_in_memory_may_be_a_list_and_must_be_bytes():
    assert three_channels([np.zeros((4, 5), np.uint8)] * 2).shape == (2, 4, 5, 3)
    assert three_channels(np.zeros((2, 4, 5, 3), np.uint8)).shape == (2, 4, 5, 3)
    for wrong in ([[[1, 2], [3, 4]]], np.zeros((2, 4, 5, 3)), np.zeros((2, 4, 5, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"`images` must be uint8 of shape"):
            three_channels(wrong)


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


def test_a_profile_has_a_largest_size_and_an_end():
    for length in (0, 1000, orientation.MOST_UNPACKED):
        assert orientation._unpacked(zlib.compress(b"0" * length)) == b"0" * length
    for packed in (
        zlib.compress(b"0" * (orientation.MOST_UNPACKED + 1)),
        zlib.compress(b"0" * 1000)[:-5],
        b"no stream",
    ):
        with pytest.raises(UnreadableImage, match="its profile"):
            orientation._unpacked(packed)


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

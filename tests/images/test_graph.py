"""Served bytes become the same pixels as in evaluation, and what is no image costs its own row alone."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_detreg.images import UnreadableImage
from tf_detreg.images import decode as evaluation_decode
from tf_detreg.images import headers as evaluation_headers
from tf_detreg.images.graph import decode_batch, headers, orientation
from tf_detreg.images.graph.binary import Content

TARGET = (32, 24)


@pytest.fixture(scope="module")
def served():
    return tf.function(
        lambda contents: decode_batch(contents, TARGET, max_pixels=4_000_000),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )


def picture(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 9), max(2, width // 9), channels), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def oriented(value):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = value
    return exif


def cases(encode):
    for height, width in [
        (1, 1),
        (24, 32),
        (40, 60),
        (300, 200),
        (333, 517),
        (20, 10),
        (5, 90),
        (282, 124),
        (900, 1300),
    ]:
        for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
            yield f"{form} {height}x{width}", encode(picture(height, width), form)
    for value in range(1, 9):
        for form in ("JPEG", "PNG", "WEBP"):
            yield f"{form} orientation {value}", encode(picture(200, 140, seed=value), form, exif=oriented(value))
    rgba, rgb = picture(60, 80, 4), picture(90, 70)
    yield "PNG transparent", encode(rgba)
    yield "WebP transparent", encode(rgba, "WEBP", lossless=True)
    yield "PNG grey and alpha", encode(rgba.convert("LA"))
    yield "PNG palette", encode(rgb.convert("P"))
    yield "PNG palette with transparency", encode(rgb.convert("P"), transparency=3)
    yield "PNG one bit", encode(rgb.convert("1"))
    yield "PNG grey", encode(rgb.convert("L"))
    deep = np.random.default_rng(1).integers(0, 65536, (40, 60), dtype=np.uint16)
    yield "PNG 16 bit", encode(Image.fromarray(deep))
    yield "PNG 16 bit, small values", encode(Image.fromarray(deep // 256))
    yield "JPEG grey", encode(rgb.convert("L"), "JPEG")
    yield "JPEG progressive", encode(picture(530, 430), "JPEG", progressive=True)
    yield "JPEG 4:4:4", encode(picture(530, 430), "JPEG", subsampling=0)
    yield "JPEG 4:2:2", encode(picture(531, 431), "JPEG", subsampling=1)
    yield "GIF animated", encode(rgb, "GIF", save_all=True, append_images=[picture(90, 70, seed=5)])
    yield "PNG animated", encode(rgb, "PNG", save_all=True, append_images=[picture(90, 70, seed=5)])


def test_pixels_equal_those_of_evaluation(served, encode):
    names, contents = zip(*cases(encode), strict=True)
    images, valid = served(tf.constant(contents))
    wanted = np.stack([evaluation_decode(content, TARGET) for content in contents])
    assert valid.numpy().all(), [name for name, good in zip(names, valid.numpy(), strict=True) if not good]
    apart = np.abs(images.numpy() - wanted).max(axis=(1, 2, 3))
    assert not apart.any(), {name: gap for name, gap in zip(names, apart, strict=True) if gap}


def test_cmyk_differs_by_rounding_alone(served, encode):
    """Pillow and TensorFlow round the product of colour and black differently."""
    content = encode(picture(130, 130).convert("CMYK"), "JPEG")
    images, valid = served(tf.constant([content]))
    assert valid.numpy().all()
    np.testing.assert_allclose(images[0], evaluation_decode(content, TARGET), atol=2)


def huge_png(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def huge_jpeg(encode, side):
    content = bytearray(encode(picture(16, 16), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(content)


def broken(encode):
    png, jpeg, webp = (encode(picture(50, 60), form) for form in ("PNG", "JPEG", "WEBP"))
    yield "empty", b""
    yield "text", b"this is no image\n" * 20
    yield "one byte", b"\xff"
    for name, content in (("png", png), ("jpeg", jpeg), ("webp", webp)):
        yield f"{name} half", content[: len(content) // 2]
        yield f"{name} head", content[:20]
        yield f"{name} magic", content[:4]
    yield "png garbled", png[:60] + bytes(40) + png[100:]
    yield "huge png", huge_png(50_000)
    yield "larger than int32", huge_png(2**31 - 1)
    yield "zero sides", huge_png(0)
    yield "huge jpeg", huge_jpeg(encode, 50_000)
    yield "above max_pixels", encode(Image.new("L", (2100, 2000)), "PNG")
    yield "webp animated", encode(picture(50, 50), "WEBP", save_all=True, append_images=[picture(50, 50, seed=9)])
    yield "endless exif", b"\xff\xd8" + b"\xff\xe1\x00\x02" * 5000


def test_broken_images_cost_their_own_row_alone(served, encode):
    names, contents = zip(*broken(encode), strict=True)
    good = encode(picture(40, 40))
    images, valid = served(tf.constant([good, *contents, good]))
    assert [name for name, fine in zip(names, valid.numpy()[1:-1], strict=True) if fine] == []
    assert not images.numpy()[1:-1].any()
    assert valid.numpy()[[0, -1]].all()
    np.testing.assert_array_equal(images[0], images[-1])
    np.testing.assert_array_equal(images[0], evaluation_decode(good, TARGET))


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_any_batch_size(served, encode, count):
    images, valid = served(tf.constant([encode(picture(8, 8, seed=3))] * count, tf.string, shape=(count,)))
    assert images.shape == (count, *TARGET, 3)
    assert valid.numpy().sum() == count


def test_an_orientation_stands_behind_two_marks_at_most():
    block = oriented(6).tobytes().removeprefix(orientation.PREFIX)
    found = [int(orientation.of_exif(tf.constant(marks * orientation.PREFIX + block))) for marks in range(4)]
    assert found == [6, 6, 6, 1]


def test_a_webp_has_at_least_the_bytes_of_its_longest_header():
    for length in (5, 8, 9, 10):
        chunk = b"VP8L" + struct.pack("<I", length) + b"\x2f" + bytes(length - 1 + length % 2)
        content = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
        assert bool(headers.webp(Content(tf.constant(content))).fine) == (len(content) >= 30) == (length >= 9)
        if length < 9:
            with pytest.raises(UnreadableImage, match="cut off"):
                evaluation_headers.webp(content)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_lossless_webp_says_its_size_beside_other_bits(encode, channels):
    for height, width in ((1, 1), (7, 300), (300, 7), (2, 5000)):
        facts = headers.webp(Content(tf.constant(encode(picture(height, width, channels), "WEBP", lossless=True))))
        assert (int(facts.height), int(facts.width), bool(facts.fine)) == (height, width, True)


def test_a_transparent_index_beyond_the_palette_of_a_gif_is_none(encode):
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "P")
    image.putpalette(np.arange(48, dtype=np.uint8).tobytes())
    content = bytearray(encode(image, "GIF", transparency=3))
    colors, at = evaluation_headers.gif(bytes(content)).colors, content.index(b"!\xf9\x04")
    for index in (0, 3, colors - 1, colors, 200):
        content[at + 6] = index
        key = int(headers.gif(Content(tf.constant(bytes(content)))).key)
        assert (None if key < 0 else key) == evaluation_headers.gif(bytes(content)).transparent


def test_a_jpeg_of_two_frames_is_refused(encode):
    content = encode(picture(40, 30), "JPEG")
    frame = content.index(b"\xff\xc0")
    behind = frame + 2 + struct.unpack(">H", content[frame + 2 : frame + 4])[0]
    twice = content[:behind] + content[frame:behind] + content[behind:]
    assert headers.jpeg(Content(tf.constant(content))).fine
    assert not headers.jpeg(Content(tf.constant(twice))).fine
    with pytest.raises(UnreadableImage):
        evaluation_headers.jpeg(twice)

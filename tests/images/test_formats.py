"""Only the promised formats are opened, by every caller; none starts a program, none decodes what is too large."""

import io
import pathlib
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.images.readers import graphs
from tf_detreg import datasets
from tf_detreg.images import MAX_PIXELS, UnreadableImage, formats
from tf_detreg.images.reference import declared_pixels, problem
from tf_detreg.images.training import header_of
from tf_detreg.serving.gallery import jpeg

CASES = pathlib.Path(__file__).parents[1] / "data" / "images"


def readers():
    """Every way from a file into the package, as functions of a path that say whether it was read."""

    def reference(path):
        try:
            return datasets.decode(path, (8, 8)) is not None
        except UnreadableImage:
            return False

    return {
        "reference": reference,
        "scan": lambda path: problem(str(path)) is None,
        "graph": lambda path: graphs([path.read_bytes()], (8, 8))[0] is not None,
        "training": lambda path: header_of(str(path)) is not None,
        "thumbnail": lambda path: jpeg(path, 16) is not None,
    }


@pytest.fixture
def programs():
    """The programs that are started while a test runs."""
    started, on = [], [True]
    sys.addaudithook(
        lambda event, arguments: (
            started.append(arguments[0])
            if on and event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")
            else None
        )
    )
    yield started
    on.clear()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"


@pytest.mark.parametrize("content", [POSTSCRIPT + b"showpage\n%%EOF\n", POSTSCRIPT + b"{ } loop\n%%EOF\n", None])
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.eps"])
def test_postscript_is_refused_and_starts_nothing(content, name, tmp_path, programs):
    content = (CASES / "postscript_named.jpg").read_bytes() if content is None else content
    path = tmp_path / name
    path.write_bytes(content)
    assert {reader: read(path) for reader, read in readers().items()} == dict.fromkeys(readers(), False)
    assert programs == []


@pytest.mark.parametrize("form", ["JPEG2000", "ICO", "TGA", "PCX", "SGI", "DDS", "PDF", "EPS", "ICNS", "IM", "MSP"])
def test_other_formats_of_pillow_are_refused_whatever_their_name(form, tmp_path):
    file = io.BytesIO()
    Image.new("1" if form == "MSP" else "RGB", (16, 16)).save(file, form)
    path = tmp_path / "photo.jpg"
    path.write_bytes(file.getvalue())
    assert {reader: read(path) for reader, read in readers().items()} == dict.fromkeys(readers(), False)


def png(width: int, height: int, depth: int = 1) -> bytes:
    """A whole grey PNG, a few kilobytes long whatever its sides."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes((width * depth + 7) // 8)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def large(form: str) -> bytes:
    """A file that declares 8,001 × 8,000 pixels."""
    if form == "PNG":
        return png(8001, 8000)
    file = io.BytesIO()
    Image.new("1" if form in ("TIFF", "BMP", "PPM") else "L", (8001, 8000)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_too_large_is_refused_before_decoding(form, tmp_path, monkeypatch):
    path = tmp_path / "large.img"
    path.write_bytes(large(form))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert {reader: read(path) for reader, read in readers().items()} == dict.fromkeys(readers(), False)
    assert MAX_PIXELS < 8001 * 8000
    with pytest.raises(UnreadableImage, match=r"large\.img: declares 8001 × 8000 pixels, more than the limit"):
        datasets.decode(path, 8)


def test_the_largest_size_is_read(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(8000, 8000))
    assert problem(path) is None
    np.testing.assert_array_equal(datasets.decode(path, (4, 4)), 0)


def test_a_tile_larger_than_the_image_counts():
    tags = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 277: 1, 322: 1 << 16, 323: 1 << 16, 324: 8, 325: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(UnreadableImage, match="65536 × 65536"):
        datasets.decode(content, 8)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(("size", "read"), [(200_000, True), (1_000_000, False), (60_000_000, False)])
def test_a_profile_is_not_unpacked_beyond_a_megabyte(tmp_path, size, read):
    """A hundred kilobytes in a picture of 8 × 8 pixels took a gigabyte in the graph."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    plain = buffer.getvalue()
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % size + b"00" * (size // 2 + 30_000))
    path = tmp_path / "x.png"
    path.write_bytes(plain[:33] + png_chunk(b"zTXt", text) + plain[33:])
    found = {name: read(path) for name, read in readers().items() if name in ("reference", "graph", "thumbnail")}
    assert set(found.values()) == {read}, found
    assert (declared_pixels(path.read_bytes()) > 0) is read


def test_what_cannot_be_opened_is_named_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "readable_formats", lambda: ("JPEG", "PNG"))
    avif, heic = (b"\0\0\0\x18ftyp" + brand + bytes(64) for brand in (b"avif", b"heic"))
    for content, reason in {b"": "empty", b"text": "no JPEG", avif: "AVIF", heic: r"tf-detreg\[heif\]"}.items():
        with pytest.raises(UnreadableImage, match=reason):
            datasets.decode(content, 8)
        (tmp_path / "x.jpg").write_bytes(content)
        assert problem(str(tmp_path / "x.jpg"))
    with pytest.raises(UnreadableImage, match="not a file"):
        datasets.decode(tmp_path, 8)
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: FileNotFoundError"):
        datasets.decode(tmp_path / "gone.jpg", 8)


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


def test_an_image_may_be_a_single_row_or_column():
    for sides in ((1, 5), (5, 1), (1, 1), (3, 4)):
        formats.check_pixels(*sides, max_pixels=12)
    for sides in ((0, 5), (5, 0), (13, 1), (2, 7)):
        with pytest.raises(UnreadableImage, match=f"declares {sides[0]} × {sides[1]} pixels"):
            formats.check_pixels(*sides, max_pixels=12)

"""The reference reader: Pillow, under the policy of this package. Evaluation reads every file with it.

Pillow is handed only what belongs to the pixels: of a JPEG its tables and scans, of a PNG its critical chunks, of a GIF
its first frame, of a BMP pixels without palette. What else such files carry is never parsed by it.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tf_detreg.images import headers, lzw, orientation
from tf_detreg.images.color import WHITE, rgb
from tf_detreg.images.formats import MAX_PIXELS, UnreadableImage, check_pixels, format_of, readable_formats
from tf_detreg.images.geometry import DRAWS, RandomCrop, Size, height_width, part, scaled, shrinkage

if TYPE_CHECKING:
    from PIL import Image


Source = str | os.PathLike[str] | bytes

_PARSERS = {"JPEG": headers.jpeg, "PNG": headers.png, "WEBP": headers.webp, "GIF": headers.gif, "BMP": headers.bmp}
_HEAD = 1 << 16  # bytes that hold most headers
_LARGEST_FILE = 1 << 30
_TIFF_ORIENTATION, _TIFF_TILE = 274, (322, 323)  # tags; a decoder allocates a tile whatever the image's size


def decode(
    source: Source,
    size: Size,
    crop: RandomCrop | None = None,
    rng: np.random.Generator | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read one image.

    Turned as its EXIF says, transparent parts on white, gray and CMYK as RGB, 16 bits as 8; cropped (in the center
    unless `crop` says otherwise) to the proportions of `size` and resized with antialiasing.

    Args:
        source: File name, or the bytes of a file.
        size: Side or (height, width) of the result.
        crop: A random crop instead of the central one. Default None.
        rng: What the random crop draws from. Default: a fresh generator.
        max_pixels: Most pixels that the file may declare. Default 64 million.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        UnreadableImage: With the file's name and the reason.
        ValueError: For a size that is none.

    Example:
        >>> ppm = b"P6 2 1 255 " + bytes([9, 8, 7, 9, 8, 7])
        >>> decode(ppm, 1).tolist()
        [[[9, 8, 7]]]
    """
    draws = (rng or np.random.default_rng()).random(DRAWS) if crop else None
    return read(source, height_width(size), crop, draws, max_pixels)


def read(
    source: Source,
    size: tuple[int, int],
    crop: RandomCrop | None = None,
    draws: np.ndarray | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read one image as `decode` does, with the crop's `draws` (4,) in [0, 1) drawn before."""
    from PIL import Image

    with _reasons(source), _open(source, max_pixels) as (image, header):
        full = (header.width, header.height)
        seen = full[::-1] if header.orientation >= 5 else full
        box = part(*seen, size, crop, draws)
        enough = shrinkage(box, size)
        # A JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the cost, where that leaves enough pixels.
        if header.components:
            image.draft(None, (max(1, int(full[0] / enough)), max(1, int(full[1] / enough))))
        shown = orientation.upright(_pixels(image, header), header.orientation)
        box = scaled(box, seen, shown.size)
        return np.asarray(shown.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


def thumbnail(source: Source, side: int) -> Image.Image:
    """Return a small Pillow image of a file, as a model sees it but not cropped.

    Args:
        source: File name, or the bytes of a file.
        side: About how many pixels its longer side needs; it may be longer.

    Raises:
        UnreadableImage: With the file's name and the reason.
    """
    with _reasons(source), _open(source, MAX_PIXELS) as (image, header):
        if header.components:
            image.draft("RGB", (2 * side, 2 * side))
        return orientation.upright(_pixels(image, header), header.orientation)


def declared_pixels(content: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Return how many pixels the graph reader would decode, by the header alone; 0 where it refuses the file.

    Args:
        content: The bytes of a file.
        max_pixels: Most pixels that the file may declare; more are refused. Default 64 million.

    Example:
        >>> declared_pixels(b"no image")
        0
    """
    try:
        header = _PARSERS[format_of(content[:16])](content)
        check_pixels(header.width, header.height, max_pixels)
    except (UnreadableImage, KeyError, struct.error, IndexError):  # what a damaged header makes of the parsers
        return 0
    return header.width * header.height


def problem(path: str | os.PathLike[str]) -> str | None:
    """Return why a file cannot be a whole image, from its first and last bytes; None if nothing speaks against it.

    What only a full decoding shows is found when the file's turn comes.
    """
    try:
        _look(os.fspath(path))
    except UnreadableImage as error:
        return str(error)
    except Exception as error:  # the file may be gone; Pillow's parsers raise whatever they like on broken ones
        return f"{type(error).__name__}: {error}"
    return None


def _look(path: str) -> None:
    _check_file(path)
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        form = format_of(head[:16])
        if form == "PNG":
            # Ends in its IEND chunk; to check every sum would read all of a data set.
            if len(head) < 33 or b"IEND" not in _tail(file, 64):
                raise UnreadableImage("the PNG is cut off")
            check_pixels(int.from_bytes(head[16:20]), int.from_bytes(head[20:24]))
        elif form in _PARSERS:
            try:
                header = _PARSERS[form](head)
            except UnreadableImage:
                header = _PARSERS[form](head + file.read(_LARGEST_FILE))
            check_pixels(header.width, header.height)
        else:
            with _open(path, MAX_PIXELS):
                pass


def _tail(file: IO[bytes], size: int) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(-min(size, file.tell()), os.SEEK_END)
    return file.read()


def _check_file(path: str) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        raise UnreadableImage("not a file")  # a pipe would never end


@contextlib.contextmanager
def _reasons(source: Source) -> Iterator[None]:
    """Turn whatever is raised inside into an `UnreadableImage` that names the file."""
    name = "the given bytes" if isinstance(source, bytes) else os.fspath(source)
    try:
        yield
    except UnreadableImage as error:
        raise UnreadableImage(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever they like on broken files
        raise UnreadableImage(f"{name}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _open(source: Source, max_pixels: int) -> Iterator[tuple[Image.Image, headers.Header]]:
    """Yield a Pillow image that is not decoded yet, and its header."""
    from PIL import Image, UnidentifiedImageError

    content = source if isinstance(source, bytes) else _content(os.fspath(source))
    form = format_of(content[:16])
    known = readable_formats()
    header = _PARSERS[form](content) if form in _PARSERS else None
    if header is not None:
        if form == "JPEG":
            headers.scans(content, header.pixels)  # a decoder may have all pixels before it comes to what is wrong
        if form == "GIF":
            lzw.check_codes(content, header.pixels)
        check_pixels(header.width, header.height, max_pixels)
        content = header.content or content
    try:
        opened = Image.open(io.BytesIO(content), formats=[name for name in known if name == form])
    except UnidentifiedImageError:
        raise UnreadableImage(f"a damaged {form}, or one of a kind that is not read here") from None
    with opened as image:
        header = header or _pillows_header(image, max_pixels)
        if image.size != (header.width, header.height):
            raise UnreadableImage(f"declares {header.width} × {header.height} pixels and {image.size} as well")
        yield image, header


def _content(path: str) -> bytes:
    _check_file(path)
    with open(path, "rb") as file:
        content = file.read(_HEAD)
        if content:
            format_of(content[:16])  # before all of it is read
        if os.path.getsize(path) > _LARGEST_FILE:
            raise UnreadableImage(f"larger than {_LARGEST_FILE:,} bytes")
        return content + file.read()


def _pillows_header(image: Any, max_pixels: int) -> headers.Header:
    """Return what Pillow found out about an image of a format that only it reads."""
    seen: tuple[int, int] = image.size
    check_pixels(seen[0], seen[1], max_pixels)
    if image.format != "TIFF":
        return headers.Header(seen[0], seen[1], orientation.of_exif(image.info.get("exif") or b""))
    width, height = (int(image.tag_v2.get(tag) or 1) for tag in _TIFF_TILE)
    check_pixels(width, height, max_pixels)
    turn = image.tag_v2.get(_TIFF_ORIENTATION)
    return headers.Header(seen[0], seen[1], turn if isinstance(turn, int) and 1 <= turn <= 8 else 1)


def _pixels(image: Image.Image, header: headers.Header) -> Image.Image:
    """Decode, as an RGB image."""
    from PIL import Image

    if header.palette is not None:
        image.load()
        image.putpalette(header.palette.ljust(768, b"\0"))
    if header.frame is None:
        _check_palette(image, header.colors)
        return rgb(image, header.transparent)
    left, top, width, height = header.frame
    first = image.crop((left, top, left + width, top + height))
    _check_palette(first, header.colors)
    canvas = Image.new("RGB", image.size, (WHITE, WHITE, WHITE))
    canvas.paste(rgb(first), (left, top))
    return canvas


def _check_palette(image: Any, colors: int) -> None:
    if colors and image.getextrema()[1] >= colors:
        raise UnreadableImage("a pixel lies outside of the palette")

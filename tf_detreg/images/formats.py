"""Which files count as images, and the one call of the package that opens one.

Policy: JPEG, PNG, WebP, GIF, BMP, TIFF and PPM are read, AVIF and HEIC where a decoder is installed. Nothing else is
opened, whatever Pillow could do with it: some of its formats (PostScript, for one) start a program on what the file
holds. The bytes decide, not the name. An image that declares more than `MAX_PIXELS` is refused before it is decoded.
"""

from __future__ import annotations

import io
import os
import warnings
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000  # an image that fills the memory must cost nothing; some phones' largest photos have 50 million

_NAMES = "jpg jpeg jpe jfif png gif bmp webp tif tiff ppm avif heic heif"
EXTENSIONS = frozenset("." + name for name in _NAMES.split())
_ALWAYS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_TILE_TAGS = (322, 323)  # width and length of a TIFF's tiles, which a decoder allocates whatever the image's size


class UnreadableImage(ValueError):
    """A file that holds no image, only part of one, or one that is too large; its text names file and reason."""


def is_image_name(name: str) -> bool:
    """Return whether a file name ends as an image's does and is not hidden.

    Example:
        >>> is_image_name("IMG_1.JPG"), is_image_name("notes.txt"), is_image_name(".thumb.jpg")
        (True, False, False)
    """
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that can be read here: AVIF and HEIF depend on what is installed."""
    from PIL import features

    # Pillow warns of what it then reads all the same. Done once: `catch_warnings` is not safe in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    found = _ALWAYS
    if features.check("avif"):
        found += ("AVIF",)
    try:
        import pillow_heif
    except ImportError:
        return found
    pillow_heif.register_heif_opener()
    return (*found, "HEIF")


def open_image(source: str | os.PathLike | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image file without decoding it.

    Args:
        source: File name, or the bytes of a file.
        max_pixels: Most pixels that the file may declare. Defaults to 64 million.

    Returns:
        A Pillow image, to be closed by the caller (it is a context manager).

    Raises:
        UnreadableImage: If the file is missing, holds none of the formats above, or declares too many pixels.

    Example:
        >>> open_image(b"%!PS-Adobe-3.0 EPSF-3.0")
        Traceback (most recent call last):
        ...
        tf_detreg.images.formats.UnreadableImage: the given bytes: no JPEG, PNG, WebP, GIF, BMP, TIFF or PPM image
    """
    from PIL import Image, UnidentifiedImageError

    formats = readable_formats()
    name = "the given bytes" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and os.path.exists(source) and not os.path.isfile(source):
        raise UnreadableImage(f"{name}: not a file")  # a pipe would never end
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"{name}: {_what_it_is(source)}") from error
    except Exception as error:  # Pillow's parsers raise whatever they like on broken files
        raise UnreadableImage(f"{name}: {type(error).__name__}: {error}") from error
    problem = _too_large(image, max_pixels)
    if problem:
        image.close()
        raise UnreadableImage(f"{name}: {problem}")
    return image


def _too_large(image: Image.Image, max_pixels: int) -> str | None:
    sizes = [image.size]
    if image.format == "TIFF":
        sizes.append(tuple(int(image.tag_v2.get(tag) or 1) for tag in _TILE_TAGS))
    for width, height in sizes:
        if width * height > max_pixels:
            return f"declares {width} × {height} pixels, more than the limit of {max_pixels:,}"
    return None


def _what_it_is(source: str | os.PathLike | bytes) -> str:
    """Say why nothing could be opened, naming a format that only lacks its decoder."""
    head = source[:16] if isinstance(source, bytes) else _head(source)
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp":
        if head[8:12] in _AVIF_BRANDS and "AVIF" not in readable_formats():
            return "an AVIF image; reading it needs a Pillow that was built with AVIF (pip install 'pillow>=11.3')"
        if head[8:12] in _HEIC_BRANDS and "HEIF" not in readable_formats():
            return "a HEIC image; reading it needs pillow-heif (pip install 'tf-detreg[heif]')"
    return "no JPEG, PNG, WebP, GIF, BMP, TIFF or PPM image"


def _head(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)

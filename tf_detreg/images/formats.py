"""Which files count as images.

Policy: JPEG, PNG, WebP, GIF, BMP, TIFF and PPM are read, AVIF and HEIC where a decoder is installed. Nothing else is
opened, whatever Pillow could do with it: some of its formats (PostScript, for one) start a program on what the file
holds. The bytes decide, not the name. An image that declares more than `MAX_PIXELS` is refused before it is decoded.
"""

from __future__ import annotations

import os
import warnings
from functools import cache

MAX_PIXELS = 64_000_000  # an image that fills the memory must cost nothing; some phones' largest photos have 50 million
MAX_SIDE = 1_000_000  # what libpng decodes

_NAMES = "jpg jpeg jpe jfif png gif bmp webp tif tiff ppm avif heic heif"
EXTENSIONS = frozenset("." + name for name in _NAMES.split())
_ALWAYS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
GIF_STARTS = (b"GIF87a", b"GIF89a")
_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP"}
_STARTS |= dict.fromkeys(GIF_STARTS, "GIF")
_STARTS |= dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF")


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


def format_of(head: bytes) -> str:
    """Return Pillow's name of the format that a file's first 16 bytes show.

    Raises:
        UnreadableImage: If it is none that is read here.

    Example:
        >>> format_of(b"GIF89a..........")
        'GIF'
    """
    if not head:
        raise UnreadableImage("the file is empty")
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        return _of_brand(head[8:12])
    raise UnreadableImage("no JPEG, PNG, WebP, GIF, BMP, TIFF or PPM image")


def _of_brand(brand: bytes) -> str:
    if brand in _AVIF_BRANDS:
        if "AVIF" not in readable_formats():
            raise UnreadableImage("an AVIF image; reading it needs a Pillow with AVIF (pip install 'pillow>=11.3')")
        return "AVIF"
    if brand in _HEIC_BRANDS:
        if "HEIF" not in readable_formats():
            raise UnreadableImage("a HEIC image; reading it needs pillow-heif (pip install 'tf-detreg[heif]')")
        return "HEIF"
    raise UnreadableImage("no JPEG, PNG, WebP, GIF, BMP, TIFF or PPM image")


def check_pixels(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image without pixels, or with too many.

    Raises:
        UnreadableImage: Then.
    """
    if width < 1 or height < 1:
        raise UnreadableImage(f"declares {width} × {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise UnreadableImage(f"declares {width} × {height} pixels, a side longer than {MAX_SIDE:,}")
    if width * height > max_pixels:
        raise UnreadableImage(f"declares {width} × {height} pixels, more than the limit of {max_pixels:,}")

"""Which way up an image is shown.

Policy, the same in every reader:

- Where an image states its orientation is fixed: a JPEG in its first `Exif` segment before the first scan, wherever
  that stands; a PNG in its first `eXIf` chunk, before or behind the pixels, or, without one, in a text chunk
  `Raw profile type exif` (or `APP1`) as ImageMagick used to write; a WebP in the `EXIF` chunk that its header
  announces; a TIFF in its first directory; AVIF and HEIC in their container. GIF, BMP and PPM state none.
- Of an EXIF block the first entry 0x0112 of the first directory counts, in either byte order, stored as an integer of
  8, 16 or 32 bits. A value outside 1..8, another type, or a block that makes no sense means 1: as stored.
- XMP does not count, as in browsers: programs that rotate an image often leave its XMP behind.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING

from tf_detreg.images.formats import UnreadableImage

if TYPE_CHECKING:
    from PIL import Image


TAG = 0x0112
PREFIX = b"Exif\0\0"
# Bytes of an integer by its TIFF type: BYTE, SHORT, LONG and their signed kin.
INTEGER_BYTES = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
RAW_PROFILES = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
LONGEST_PROFILE = 1 << 17  # bytes of a text chunk; a longer one does not count
MOST_UNPACKED = 1 << 20  # bytes of what it unpacks to: a thousand times its own size is possible, and no profile

# The orientations after which a stored image is shown from right to left, and from bottom to top; those from 5 on are
# transposed before.
MIRRORED, UPSIDE_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)
# PIL.Image.Transpose values, by orientation.
_TRANSPOSES = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def of_exif(block: bytes) -> int:
    """Return the orientation, 1..8, that an EXIF block states.

    Example:
        >>> of_exif(b"MM\\0*\\0\\0\\0\\x08\\0\\1\\1\\x12\\0\\3\\0\\0\\0\\1\\0\\6\\0\\0")
        6
        >>> of_exif(b"no block")
        1
    """
    for _ in range(2):
        block = block.removeprefix(PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", block, at)
            size = INTEGER_BYTES.get(kind, 0)
            if tag == TAG:
                inline = 1 <= size * count <= 4 and at + 12 <= len(block)
                value = int.from_bytes(block[at + 8 : at + 8 + size], "little" if order == "<" else "big")
                return value if inline and 1 <= value <= 8 else 1
    except struct.error:  # the block ends too early
        pass
    return 1


def of_raw_profile(chunk: bytes, compressed: bool) -> int:
    """Return the orientation that a PNG's text chunk states: lines of hexadecimal digits, behind three others.

    Args:
        chunk: What follows the keyword and its zero byte.
        compressed: Whether the text is compressed (zTXt).

    Raises:
        UnreadableImage: If the text cannot be unpacked, or not into a megabyte.
    """
    text = _unpacked(chunk[1:]) if compressed else chunk
    digits = re.sub(rb"[^0-9a-fA-F]", b"", b"".join(text.split(b"\n")[3:]))
    return of_exif(bytes.fromhex(digits[: len(digits) // 2 * 2].decode()))


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MOST_UNPACKED + 1)
    except zlib.error as error:
        raise UnreadableImage(f"its profile cannot be unpacked: {error}") from error
    if len(text) > MOST_UNPACKED or not unpacker.eof:
        raise UnreadableImage(f"its profile is cut off, or unpacks to more than {MOST_UNPACKED:,} bytes")
    return text


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return a Pillow image as it is shown."""
    if orientation == 1:
        return image
    from PIL import Image

    return image.transpose(Image.Transpose(_TRANSPOSES[orientation]))

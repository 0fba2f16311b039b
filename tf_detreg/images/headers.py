"""What an image file says before its pixels: size, orientation, and whether it is whole as far as that can be seen.

`graph/headers.py` reads the same from the same bytes in TensorFlow operations; whatever is refused here is refused
there. That is how two decoders that forgive different faults come to the same answer.

Policy: what is cut off is unreadable, also where a decoder would fill the rest. A JPEG holds 8 bits a channel, baseline
or progressive; CMYK needs Adobe's marker, without which nothing says how its inks are stored. Its scans end in an end
mark, and between them stand only segments that may stand there, each whole. A PNG ends in IEND and its critical chunks
carry their checksums. A WebP's chunks add up to the size that it states; the first that holds pixels counts, and
they end within it. A GIF's canvas counts, and of several frames the first.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tf_detreg.images import orientation
from tf_detreg.images.formats import UnreadableImage

MOST_SEGMENTS = 1024  # of a JPEG before its pixels, and again from there on
MOST_CHUNKS = 1 << 14  # of a PNG or WebP; a GIF may have eight times as many blocks
MOST_BLOCKS = 1 << 17
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
# Huffman and quantization tables, number of lines, restart interval, applications' segments, comments.
JPEG_SEGMENTS = (0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE)
JPEG_EMPTY = (0x00, *range(0xD0, 0xD8))  # what is passed over: a stored byte of 255, restart marks
BMP_HEADERS = (40, 52, 56, 64, 108, 124)  # bytes
JUNK = 1024  # bytes between two segments of a JPEG that are passed over in one step
_JPEG_MARK = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
PNG_START, PNG_CRITICAL = b"\x89PNG\r\n\x1a\n", (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by the kind of color

WEBP_PIXELS = (b"VP8 ", b"VP8L")  # chunks
WEBP_WITH_ALPHA = b"VP8X\x0a\0\0\0\x10\0\0\0"  # a header's first part; width and height follow


@dataclass(frozen=True)
class Header:
    """The size of an image as stored, before any turning, and its orientation.

    Args:
        width: In pixels.
        height: In pixels.
        orientation: 1..8, as EXIF numbers them. Default 1.
        components: Channels of a JPEG. Default 0.
        pixels: Where the first scan of a JPEG, or the compressed pixels of a GIF begin. Default 0.
        progressive: Whether a JPEG is. Default False.
        frame: (left, top, width, height) of a GIF's first frame on its canvas. Default None.
        transparent: The one transparent index of a GIF, or gray of a PNG. Default None.
        colors: Of a GIF's or BMP's palette; 0 without one. Default 0.
        palette: Of a BMP, three bytes a color. Default None.
        content: The bytes to decode, where not all should reach a decoder. Default None.
    """

    width: int
    height: int
    orientation: int = 1
    components: int = 0
    pixels: int = 0
    progressive: bool = False
    frame: tuple[int, int, int, int] | None = None
    transparent: int | None = None
    colors: int = 0
    palette: bytes | None = None
    content: bytes | None = None


class TooShort(UnreadableImage):
    """The bytes end within the header."""


def jpeg(content: bytes) -> Header:
    """Read the segments of a JPEG up to its first scan, and keep of them what its pixels need.

    Raises:
        TooShort: If more bytes are needed.
        UnreadableImage: If it is none that is read here.
    """
    at, frame, block, adobe, kept = 2, None, None, False, [content[:2]]
    for _ in range(MOST_SEGMENTS):
        if at + 2 > len(content):
            raise TooShort("the JPEG is cut off")
        kind = content[at + 1]
        if content[at] != 0xFF:
            found = content.find(b"\xff", at, at + JUNK)
            at = found if found >= 0 else at + JUNK
        elif kind == 0xFF:
            at += 1
        elif kind in JPEG_EMPTY:
            at += 2
        elif kind == 0xDA:
            if frame is None:
                break
            progressive, depth, height, width, components = frame
            if depth != 8 or components not in (1, 3, 4):
                raise UnreadableImage(f"a JPEG of {components} channels of {depth} bits")
            if components == 4 and not adobe:
                raise UnreadableImage("a CMYK JPEG that does not say how its inks are stored (no Adobe marker)")
            kept = b"".join([*kept, content[at:]])
            turn = orientation.of_exif(block or b"")
            return Header(width, height, turn, components, at, progressive, content=kept)
        elif kind not in JPEG_FRAMES and kind not in JPEG_SEGMENTS:
            break
        else:
            end = _segment_end(content, at)
            body = content[at + 4 : end]
            if kind in JPEG_FRAMES:
                if len(body) < 6 or frame is not None:
                    raise UnreadableImage("a JPEG with two frames, or with a damaged one")
                frame = (kind == 0xC2, *struct.unpack_from(">BHHB", body))
            if kind == 0xE1 and block is None and body.startswith(orientation.PREFIX):
                block = body
            adobe |= kind == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
            if not (0xE1 <= kind <= 0xED or kind in (0xEF, 0xFE)):
                kept.append(content[at:end])
            at = end
    raise UnreadableImage("no JPEG image of a kind that is read here: its segments lead to no pixels")


def scans(content: bytes, at: int) -> int:
    """Return how many segments stand in a JPEG from its first scan, at `at`, to its end mark.

    Decoders disagree about a segment that is damaged or has no place there, as a changed byte among the pixels makes
    one: some stop, some have all pixels before they come to it.

    Raises:
        UnreadableImage: If there is no end mark, or another mark has no place there, or a segment is cut off.
    """
    for count in range(MOST_SEGMENTS):
        found = _JPEG_MARK.search(content, at)
        if found is None:
            break
        at, kind = found.start(), content[found.start() + 1]
        if kind == 0xD9:
            return count
        if kind != 0xDA and kind not in JPEG_SEGMENTS:
            raise UnreadableImage(f"the JPEG has a mark 0x{kind:02x} among its pixels")
        at = _segment_end(content, at)
    raise UnreadableImage("the JPEG is cut off: its scans lead to no end mark")


def _segment_end(content: bytes, at: int) -> int:
    length = int.from_bytes(content[at + 2 : at + 4])
    if at + 4 > len(content) or at + 2 + length > len(content):
        raise TooShort("the JPEG is cut off")
    if length < 2:
        raise UnreadableImage("the JPEG has a segment of no length")
    return at + 2 + length


def png(content: bytes) -> Header:
    """Read the chunks of a PNG, all to the end, and keep of them what makes the first image.

    Raises:
        UnreadableImage: If it is cut off, or a critical chunk is unknown or has a wrong checksum.
    """
    chunks = list(_png_chunks(content))
    kinds = [kind for kind, _, _ in chunks]
    if kinds[:1] != [b"IHDR"] or b"IDAT" not in kinds or kinds.count(b"IHDR") != 1:
        raise UnreadableImage("the PNG lacks its header or its pixels")
    head = chunks[0][1]
    if len(head) != 13:
        raise UnreadableImage("the PNG's header has a wrong length")
    width, height, depth, kind, packing, filtering, interlace = struct.unpack(">IIBBBBB", head)
    if depth not in PNG_DEPTHS.get(kind, ()) or packing or filtering or interlace > 1:
        raise UnreadableImage("the PNG's header makes no sense")
    first = kinds.index(b"IDAT")
    palette = [(at, body) for at, (name, body, good) in enumerate(chunks[:first]) if name == b"PLTE" and good]
    if kind == 3 and (len(palette) != 1 or kinds.count(b"PLTE") != 1 or not _palette_fits(palette[0][1])):
        raise UnreadableImage("the PNG's palette is missing or damaged")
    clear = None
    if kind in (0, 2, 3):
        begin = palette[0][0] if kind == 3 else 0
        keys = [(body, good) for name, body, good in chunks[begin:first] if name == b"tRNS"]
        if keys and kind == 2 and depth == 16:
            raise UnreadableImage("a PNG of 16 bits with a transparent color")
        most = len(palette[0][1]) // 3 if kind == 3 else 0
        clear = next((body for body, good in keys if good and _key_fits(body, kind, most)), None)
    parts = [(b"IHDR", head)]
    if kind == 3:
        parts.append((b"PLTE", palette[0][1][: 3 << depth].ljust(3 << depth, b"\0")))
    if clear is not None and kind == 2:
        clear = bytes(byte * (at % 2) for at, byte in enumerate(clear))  # of 16 stored bits the low eight count
    if clear is not None and kind != 0:
        parts.append((b"tRNS", clear))
    parts += [(name, body) for name, body, _ in chunks if name == b"IDAT"]
    kept = PNG_START + b"".join(_png_chunk(*one) for one in parts) + _png_chunk(b"IEND", b"")
    gray = None
    if clear is not None and kind == 0:
        # As it comes out of a decoder: fewer bits than eight spread over 0..255.
        gray = int.from_bytes(clear) & (1 << depth) - 1
        gray = gray * 255 // ((1 << depth) - 1) if depth < 8 else gray
    return Header(width, height, _png_orientation(chunks), transparent=gray, content=kept)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    at = len(PNG_START)
    for _ in range(MOST_CHUNKS):
        if at + 12 > len(content):
            raise UnreadableImage("the PNG is cut off")
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            raise UnreadableImage("the PNG is cut off")
        body = content[at + 8 : end - 4]
        good = zlib.crc32(body, zlib.crc32(kind)) == struct.unpack_from(">I", content, end - 4)[0]
        if not kind.isalpha() or (kind[:1].isupper() and kind not in PNG_CRITICAL):
            raise UnreadableImage(f"the PNG has an unknown critical chunk {kind!r}")
        if not good and kind in (b"IHDR", b"IDAT", b"IEND"):
            raise UnreadableImage(f"the checksum of the PNG's {kind.decode()} is wrong")
        yield kind, body, good
        if kind == b"IEND":
            return
        at = end
    raise UnreadableImage(f"the PNG has more than {MOST_CHUNKS:,} chunks")


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _palette_fits(body: bytes) -> bool:
    return 0 < len(body) <= 768 and len(body) % 3 == 0


def _key_fits(body: bytes, kind: int, most: int) -> bool:
    return 0 < len(body) <= most if kind == 3 else len(body) == (2 if kind == 0 else 6)


def _png_orientation(chunks: Any) -> int:
    for kind, body, _ in chunks:
        if kind == b"eXIf":
            return orientation.of_exif(body)
    for kind, body, _ in chunks:
        for keyword in orientation.RAW_PROFILES:
            if kind in (b"tEXt", b"zTXt") and body.startswith(keyword) and len(body) <= orientation.LONGEST_PROFILE:
                return orientation.of_raw_profile(body[len(keyword) :], kind == b"zTXt")
    return 1


def webp(content: bytes) -> Header:
    """Read size and EXIF of a WebP, see that its chunks add up, and keep of them what makes its image.

    Of an animation all are kept.

    Raises:
        UnreadableImage: If it is cut off, its chunks do not add up, or it has no pixels.
    """
    (size,) = struct.unpack_from("<I", content, 4)
    if len(content) < 30 or size + 8 > len(content):
        raise UnreadableImage("the WebP is cut off")
    chunks = list(_webp_chunks(content, size + 8))
    pixels = next((chunk for chunk in chunks if chunk[0] in WEBP_PIXELS), None)
    form = content[12:16]
    if form != b"VP8X":
        if pixels is None or pixels[1] != 12:
            raise UnreadableImage("the WebP has no pixels, or no header before them")
        width, height = struct.unpack_from("<HH", content, 26)
        if form == b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        return Header(width & 0x3FFF, height & 0x3FFF, content=_webp_of(content[12 : pixels[2]]))
    animated = content[20] & 2
    if content[16:20] != b"\x0a\0\0\0" or not (animated or pixels):
        raise UnreadableImage("the WebP has no pixels, or a damaged header")
    width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
    turn = orientation.of_exif(_webp_exif(content, chunks)) if content[20] & 8 else 1
    return Header(width, height, turn, content=content if animated else _webp_still(content, chunks, pixels))


def _webp_chunks(content: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, beginning and end of each, its padding included."""
    at = 12
    for _ in range(MOST_CHUNKS):
        if at == end:
            return
        if at + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", content, at)
        behind = at + 8 + length + length % 2
        yield kind, at, behind
        at = behind
    raise UnreadableImage("the WebP's chunks do not add up to its size")


def _webp_exif(content: bytes, chunks: Any) -> bytes:
    """Return the first EXIF block, empty without one."""
    at = next((start for kind, start, _ in chunks if kind == b"EXIF"), len(content))
    return content[at + 8 : at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")]


def _webp_still(content: bytes, chunks: Any, pixels: Any) -> bytes:
    """Return a WebP of the first chunk that holds pixels, and of the alpha before it where that belongs to it."""
    kind, start, end = pixels
    kept = content[start:end]
    alpha = next((content[at:behind] for name, at, behind in chunks if name == b"ALPH" and at < start), None)
    if alpha is not None and kind == b"VP8 ":
        kept = WEBP_WITH_ALPHA + content[24:30] + alpha + kept
    return _webp_of(kept)


def _webp_of(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def gif(content: bytes) -> Header:
    """Read a GIF up to the end of its first frame.

    Raises:
        UnreadableImage: If it is cut off before, has no frame, or a frame without colors.
    """
    if len(content) < 13:
        raise UnreadableImage("the GIF is cut off")
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    colors = 2 << (flags & 7) if flags & 0x80 else 0
    at, clear = 13 + 3 * colors, None
    for _ in range(MOST_BLOCKS):
        mark = content[at : at + 1]
        if mark == b"!":
            control = content[at + 1 : at + 3] == b"\xf9\x04" and content[at + 3 : at + 8]
            if control and len(control) == 5:
                clear = control[3] if control[0] & 1 else None
            at = _gif_blocks(content, at + 2)
        elif mark == b"," and at + 10 <= len(content):
            left, top, columns, rows, local = struct.unpack_from("<HHHHB", content, at + 1)
            start = at + 10
            if local & 0x80:
                colors, start = 2 << (local & 7), start + 3 * (2 << (local & 7))
            end = _gif_blocks(content, start + 1)
            if not colors or not columns or not rows:
                raise UnreadableImage("the GIF's first frame has no colors or no pixels")
            if clear is not None and clear >= colors:
                clear = None
            size = max(width, left + columns), max(height, top + rows)
            frame = (left, top, columns, rows)
            kept = content[:end] + b";"
            return Header(*size, pixels=start, frame=frame, transparent=clear, colors=colors, content=kept)
        else:
            break
    raise UnreadableImage("the GIF is cut off, or has no frame")


def _gif_blocks(content: bytes, at: int) -> int:
    """Return where a chain of blocks, each behind its length and the last one empty, ends."""
    for _ in range(MOST_BLOCKS):
        if at >= len(content):
            break
        length = content[at]
        at += 1 + length
        if length == 0:
            return at
    raise UnreadableImage("the GIF is cut off")


def bmp(content: bytes) -> Header:
    """Read the header and the palette of a BMP.

    A palette is taken out of `content`: Pillow takes some for gray, and then misreads the pixels.

    Raises:
        UnreadableImage: If it is cut off or its palette is too long.
    """
    if len(content) < 26:
        raise UnreadableImage("the BMP is cut off")
    offset, size = struct.unpack_from("<II", content, 10)
    width, height, _, depth = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", content, 18)
    if depth not in (1, 4, 8):
        return Header(width, abs(height))
    if (size != 12 and size not in BMP_HEADERS) or len(content) < 14 + size:
        raise UnreadableImage("the BMP is cut off, or has an unknown header")
    entry, colors = 4, 1 << depth
    if size == 12:
        entry = 3
    else:
        colors = struct.unpack_from("<I", content, 46)[0] or colors
    if colors > 1 << depth:
        raise UnreadableImage(f"the BMP has {colors} colors for pixels of {depth} bits")
    start = 14 + size
    behind = start + entry * colors
    palette = content[start:behind]
    if len(palette) < entry * colors:
        raise UnreadableImage("the BMP is cut off")
    info = content[14:start] if size == 12 else content[14:46] + struct.pack("<I", 1 << depth) + content[50:start]
    marks = b"\xff\0\xff\0"[:entry] * (1 << depth)
    kept = content[:10] + struct.pack("<I", start + len(marks)) + info + marks
    kept += content[offset if offset > start else behind :]
    rgb = b"".join(palette[at : at + 3][::-1] for at in range(0, len(palette), entry))
    return Header(width, abs(height), colors=colors, palette=rgb, content=kept)

"""Image files of every kind that can be met, made by Pillow and by hand: (name, bytes, what readers must say).

The last is "all" (every reader reads it, to the same pixels), "reference" (the graph answers with `valid = false`) or
"none" (no reader reads it).
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

ALL, REFERENCE, NONE = "all", "reference", "none"
WIDTH, HEIGHT = 48, 32


def scene(width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    """Smooth, with another color in each corner, so that neither cut nor turn nor mirror goes unseen."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    parts = [255 * x, 255 * y, 127 + 127 * np.sin(4 * x * y + x), 255 * (x + y) / 2]
    return np.stack(parts[:channels], -1).astype(np.uint8)


def saved(image, form: str, **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


# PNG, written by hand: Pillow writes neither all depths nor interlacing.


def chunk(kind: bytes, data: bytes, good: bool = True) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ (not good))


def packed(values: np.ndarray, depth: int) -> bytes:
    """Rows of samples, each row behind its filter's number (none)."""
    rows = values.reshape(len(values), -1)
    if depth == 16:
        body = rows.astype(">u2").view(np.uint8)
    elif depth == 8:
        body = rows.astype(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        body = np.packbits(bits.reshape(len(rows), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in body)


PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(kind: int, depth: int, before=(), behind=(), interlaced=False, values=None, palette=None, parts=1) -> bytes:
    """A PNG of the scene; `before` and `behind` are chunks on either side of the pixels."""
    if values is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
        values = scene(channels=channels).astype(np.uint32) * 257 >> (16 - depth)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, interlaced)
    if interlaced:
        data = b"".join(packed(values[y::dy, x::dx], depth) for y, x, dy, dx in PASSES if values[y::dy, x::dx].size)
    else:
        data = packed(values, depth)
    data = zlib.compress(data)
    step = -(-len(data) // parts)
    pixels = b"".join(chunk(b"IDAT", data[at : at + step]) for at in range(0, len(data), step))
    colors = b""
    if kind == 3:
        table = np.random.default_rng(depth).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
        colors = chunk(b"PLTE", table.tobytes() if palette is None else palette)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colors
    return start + b"".join(before) + pixels + b"".join(behind) + chunk(b"IEND", b"")


DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def pngs() -> Iterator[tuple[str, bytes, str]]:
    for kind, depths in DEPTHS.items():
        for depth in depths:
            for interlaced in (False, True):
                yield f"png {kind} {depth} interlaced={interlaced}", png(kind, depth, interlaced=interlaced), ALL
    for depth in DEPTHS[0]:
        most = (1 << depth) - 1
        for key in sorted({0, most, most // 2, 0xFFFF, 0x100}):
            name = f"png grey {depth} key {key}"
            yield name, png(0, depth, [chunk(b"tRNS", struct.pack(">H", key))]), ALL
        yield f"{name} bad", png(0, depth, [chunk(b"tRNS", struct.pack(">H", 0), False)]), ALL
        yield f"{name} long", png(0, depth, [chunk(b"tRNS", bytes(6))]), ALL
    for depth in DEPTHS[3]:
        for keys in (b"\0", b"\x80\xff", bytes(range(0, 1 << min(depth, 7))), b"\xff\0"):
            yield f"png palette {depth} alpha {len(keys)}{keys[:1]}", png(3, depth, [chunk(b"tRNS", keys)]), ALL
        yield f"png palette {depth} bad alpha", png(3, depth, [chunk(b"tRNS", b"\0\0", False)]), ALL
        yield f"png palette {depth} long alpha", png(3, depth, [chunk(b"tRNS", bytes(257))]), ALL
        yield f"png palette {depth} short", png(3, depth, palette=b"\x10\x80\xf0" * max(1, (1 << depth) - 3)), ALL
        yield f"png palette {depth} none", png(3, depth, palette=b""), NONE
        yield f"png palette {depth} odd", png(3, depth, palette=bytes(4)), NONE
        yield (
            f"png palette {depth} grey ramp",
            png(3, depth, palette=bytes(np.repeat(range(1 << depth), 3).tolist())),
            ALL,
        )
    corner = struct.pack(">3H", *map(int, scene()[0, 0]))
    yield "png color key", png(2, 8, [chunk(b"tRNS", corner)]), ALL
    yield "png color key high", png(2, 8, [chunk(b"tRNS", b"\1\0\1\0\1\0")]), ALL
    yield "png color 16 key", png(2, 16, [chunk(b"tRNS", corner)]), NONE
    yield "png alpha and key", png(6, 8, [chunk(b"tRNS", corner)]), ALL
    yield "png grey 16 small", png(0, 16, values=scene(channels=1).astype(np.uint16)), ALL
    yield "png split", png(2, 8, parts=60), ALL
    yield "png split key behind", png(2, 8, behind=[chunk(b"tRNS", corner)]), ALL
    yield "png no end", png(2, 8)[:-12], NONE
    yield "png half an end", png(2, 8)[:-4], NONE
    yield "png trailing", png(2, 8) + b"more" * 9, ALL
    yield (
        "png ancillary",
        png(2, 8, [chunk(b"teST", b"1"), chunk(b"gAMA", b"\0\1\x86\xa0"), chunk(b"iCCP", b"x\0\0y")]),
        ALL,
    )
    yield "png ancillary bad", png(2, 8, [chunk(b"pHYs", bytes(9), False), chunk(b"tEXt", b"a\0b", False)]), ALL
    yield "png critical", png(2, 8, [chunk(b"TEST", b"1")]), NONE
    yield "png critical behind", png(2, 8, behind=[chunk(b"TEST", b"1")]), NONE
    yield "png suggested palette", png(2, 8, [chunk(b"PLTE", bytes(9))]), ALL
    yield "png sum of pixels", png(2, 8).replace(b"IDAT", b"IDAU"), NONE
    at = png(2, 8).index(b"IEND") - 8
    yield "png sum of pixels wrong", png(2, 8)[:at] + b"\1\2\3\4" + png(2, 8)[at + 4 :], NONE
    frames = [Image.fromarray(scene()[:, ::-1])]
    yield "png animated", saved(scene(), "PNG", save_all=True, append_images=frames), ALL


def tiff_block(
    value: int, order: str = "<", kind: int = 3, count: int = 1, tag: int = 0x0112, more: bytes = b""
) -> bytes:
    """An EXIF block of one entry."""
    size = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}.get(kind, "I")
    stored = struct.pack(order + size, value).ljust(4, b"\0")
    entry = struct.pack(order + "HHI", tag, kind, count) + stored
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entries = 1 + len(more) // 12
    return start + struct.pack(order + "H", entries) + more + entry + bytes(4)


def exif(*arguments, **options) -> bytes:
    return b"Exif\0\0" + tiff_block(*arguments, **options)


def segment(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def jpeg(**options) -> bytes:
    return saved(scene(), "JPEG", **({"quality": 95, "subsampling": 0} | options))


def inserted(body: bytes, before: bytes = b"", kind: int = 0xE1, file: bytes | None = None) -> bytes:
    """A JPEG with one more segment: at the start, or before the first `before`."""
    file = jpeg() if file is None else file
    at = file.index(before) if before else 2
    return file[:at] + segment(kind, body) + file[at:]


XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def raw_profile(block: bytes, name: bytes = b"exif") -> bytes:
    digits = block.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"\n%s\n%8d\n%s\n" % (name, len(block), lines)


def webp_with(block: bytes, flag: bool = True) -> bytes:
    """A WebP with an EXIF chunk, announced in its header or not."""
    plain = saved(scene(), "WEBP", lossless=True)
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes([8 * flag, 0, 0, 0]) + size + plain[12:]
    body += b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return riff(body)


def riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body)) + body


def oriented() -> Iterator[tuple[str, bytes, int]]:
    """Every form in which an orientation is stated, with the one that counts."""
    for value in range(1, 9):
        for order in "<>":
            for kind in (1, 3, 4, 6, 8, 9):
                yield f"jpeg {value} {order} type {kind}", inserted(exif(value, order, kind)), value
        for order in "<>":
            yield f"png {value} {order}", png(2, 8, [chunk(b"eXIf", tiff_block(value, order))]), value
            yield f"webp {value} {order}", webp_with(tiff_block(value, order)), value
    six, three = exif(6, ">", 4), exif(3)
    tables, frame, scan = b"\xff\xdb", b"\xff\xc0", b"\xff\xda"
    for name, mark in {"tables": tables, "frame": frame, "scan": scan}.items():
        yield f"jpeg before the {name}", inserted(six, mark), 6
    yield "jpeg twice", inserted(six, file=inserted(three)), 6
    yield "jpeg twice, the second further", inserted(three, tables, file=inserted(six)), 6
    yield "jpeg behind comments", inserted(six, tables, file=inserted(bytes(300), kind=0xFE)), 6
    yield "jpeg behind xmp", inserted(six, tables, file=inserted(XMP)), 6
    yield "jpeg two prefixes", inserted(b"Exif\0\0" + six), 6
    yield "jpeg xmp alone", inserted(XMP), 1
    yield "jpeg xmp beside exif", inserted(XMP, tables, file=inserted(exif(0, tag=0x0110))), 1
    yield "jpeg exif against xmp", inserted(exif(8), tables, file=inserted(XMP)), 8
    yield "jpeg behind other entries", inserted(exif(6, more=struct.pack("<HHII", 0x010F, 2, 9, 999) * 20)), 6
    yield "jpeg two entries", inserted(exif(6, more=struct.pack("<HHII", 0x0112, 3, 1, 8))), 8
    yield "jpeg two values", inserted(exif(6, count=2)), 6
    yield "jpeg longs elsewhere", inserted(exif(6, kind=4, count=2)), 1
    yield "jpeg no value", inserted(exif(6, count=0)), 1
    for kind in (0, 2, 5, 7, 11, 13, 200):
        yield f"jpeg type {kind}", inserted(exif(6, kind=kind)), 1
    for value in (0, 9, 255):
        yield f"jpeg value {value}", inserted(exif(value)), 1
    yield "jpeg other order of bytes", inserted(six.replace(b"MM", b"XX")), 1
    yield "jpeg other number", inserted(six.replace(b"MM\0*", b"MM\0+")), 1
    yield "jpeg directory elsewhere", inserted(six[:10] + b"\xff" * 4 + six[14:]), 1
    yield "jpeg directory cut off", inserted(six[:20]), 1
    yield "jpeg entry cut off", inserted(six[:26]), 1
    yield "jpeg more entries than bytes", inserted(six[:14] + b"\xff\xff" + six[16:]), 6
    yield "jpeg empty block", inserted(b"Exif\0\0"), 1
    for order in "<>":
        eight = chunk(b"eXIf", tiff_block(8, order))
        yield f"png behind the pixels {order}", png(2, 8, behind=[eight], parts=9), 8
        yield f"png prefix {order}", png(2, 8, [chunk(b"eXIf", exif(8, order))]), 8
    yield "png twice", png(2, 8, [eight], [chunk(b"eXIf", tiff_block(3))]), 8
    yield "png wrong sum", png(2, 8, [chunk(b"eXIf", tiff_block(8), False)]), 8
    for name in (b"exif", b"APP1"):
        text = raw_profile(six, name)
        keyword = b"Raw profile type " + name + b"\0"
        yield f"png profile {name}", png(2, 8, [chunk(b"tEXt", keyword + text)]), 6
        yield f"png packed profile {name}", png(2, 8, [chunk(b"zTXt", keyword + b"\0" + zlib.compress(text))]), 6
        yield f"png profile behind {name}", png(2, 8, behind=[chunk(b"tEXt", keyword + text)]), 6
        yield f"png profile and exif {name}", png(2, 8, [chunk(b"tEXt", keyword + text), eight]), 8
        yield f"png odd profile {name}", png(2, 8, [chunk(b"tEXt", keyword + text[:-2] + b"zz")]), 6
        yield f"png short profile {name}", png(2, 8, [chunk(b"tEXt", keyword + b"\nexif")]), 1
    yield "webp prefix", webp_with(exif(6)), 6
    yield "webp not announced", webp_with(tiff_block(6), flag=False), 1


def jpegs() -> Iterator[tuple[str, bytes, str]]:
    wide = scene(211, 157)
    for mode in ("L", "RGB"):
        for options in ({}, {"progressive": True}, {"optimize": True}, {"quality": 5}, {"restart_marker_blocks": 3}):
            yield f"jpeg {mode} {options}", saved(Image.fromarray(wide).convert(mode), "JPEG", **options), ALL
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            options = {"subsampling": subsampling, "progressive": progressive}
            yield f"jpeg {options}", saved(scene(517, 311), "JPEG", **options), ALL
    yield "jpeg keeps rgb", saved(wide, "JPEG", keep_rgb=True), ALL
    cmyk = saved(Image.fromarray(wide).convert("CMYK"), "JPEG")
    yield "jpeg cmyk", cmyk, ALL
    at = cmyk.index(b"\xff\xee")
    yield "jpeg cmyk without a marker", cmyk[:at] + cmyk[at + 16 :], NONE
    plain = jpeg()
    yield "jpeg trailing", plain + b"more" * 50, ALL
    yield "jpeg no end", plain[:-2], NONE
    yield "jpeg junk between", plain[:2] + bytes(500) + plain[2:], NONE  # three bytes say what a file is
    at = plain.index(b"\xff\xdb")
    yield "jpeg junk between segments", plain[:at] + bytes(1500) + plain[at:], ALL
    yield "jpeg filled", plain[:at] + b"\xff" * 90 + plain[at:], ALL
    yield "jpeg two pictures", saved(scene(), "MPO", save_all=True, append_images=[Image.fromarray(wide)]), ALL
    at = plain.index(b"\xff\xc0")
    for kind in (0xC3, 0xC5, 0xC9, 0xCB):
        yield f"jpeg frame {kind:x}", plain[: at + 1] + bytes([kind]) + plain[at + 2 :], NONE
    yield "jpeg of 12 bits", plain[: at + 4] + b"\x0c" + plain[at + 5 :], NONE
    scan = plain.index(b"\xff\xda")
    for name, more in {"comment": segment(0xFE, b"x"), "table": segment(0xDB, bytes([1]) + bytes([9]) * 64)}.items():
        yield f"jpeg {name} behind the pixels", plain[:-2] + more + plain[-2:], ALL
    for kind in (0x01, 0x02, 0xBF, 0xC0, 0xC8, 0xCC, 0xD8, 0xDE, 0xF0, 0xFD):
        yield f"jpeg mark {kind:x} among the pixels", plain[:-9] + segment(kind, bytes(9)) + plain[-9:], NONE
        if kind != 0xC0:
            yield f"jpeg mark {kind:x} before the scan", plain[:scan] + segment(kind, bytes(9)) + plain[scan:], NONE
    yield "jpeg segment without end", plain[:-9] + b"\xff\xfe\x7f\xff" + plain[-9:], NONE
    yield "jpeg segment without length", plain[:-9] + b"\xff\xfe\0\1" + plain[-9:], NONE
    yield "jpeg no height", plain[: at + 5] + b"\0\0" + plain[at + 7 :], NONE
    yield "jpeg many comments", plain[:2] + segment(0xFE, b"x") * 900 + plain[2:], ALL
    yield "jpeg too many comments", plain[:2] + segment(0xFE, b"x") * 1100 + plain[2:], NONE
    for width, height in ((1, 1), (1, 40), (40, 1), (7, 9), (8, 8), (17, 16)):
        yield f"jpeg {width} x {height}", saved(scene(width, height), "JPEG"), ALL


def webps() -> Iterator[tuple[str, bytes, str]]:
    clear = Image.fromarray(scene(channels=4), "RGBA")
    for lossless in (False, True):
        yield f"webp lossless={lossless}", saved(scene(201, 99), "WEBP", lossless=lossless), ALL
        yield f"webp alpha lossless={lossless}", saved(clear, "WEBP", lossless=lossless), ALL
        yield (
            f"webp grey lossless={lossless}",
            saved(Image.fromarray(scene()).convert("L"), "WEBP", lossless=lossless),
            ALL,
        )
    frames = [Image.fromarray(scene()[:, ::-1])]
    yield "webp animated", saved(scene(), "WEBP", save_all=True, append_images=frames), REFERENCE
    plain = saved(scene(), "WEBP")
    yield "webp trailing", plain + b"more", ALL
    for count in (1, 2, 7, 9):
        yield f"webp {count} bytes that are no chunk", riff(plain[8:] + bytes(range(65, 65 + count))), NONE
    yield "webp unknown chunk", riff(plain[8:] + b"JUNK" + struct.pack("<I", 3) + b"abc\0"), ALL
    yield "webp chunk without its last byte", riff(plain[8:] + b"JUNK" + struct.pack("<I", 3) + b"abc"), NONE
    oriented = webp_with(tiff_block(6))
    yield "webp a shorter chunk", oriented[:16] + b"\x09" + oriented[17:], NONE
    yield from webps_of_chunks(plain[12:], oriented, saved(clear, "WEBP"))


def webps_of_chunks(lossy: bytes, lossless: bytes, clear: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Chunks that are missing, in other orders, or there twice: the first that holds pixels counts."""
    head, rest = lossless[12:30], lossless[30:]
    clear_head, alpha_end = clear[12:30], 38 + int.from_bytes(clear[34:38], "little") + (clear[34] & 1)
    alpha, pixels = clear[30:alpha_end], clear[alpha_end:]
    junk, longer_head = b"JUNK" + bytes(4), head[:4] + b"\x0c\0\0\0" + head[8:] + b"\0\0"
    for name, chunks, wanted in (
        ("two headers", [head, head, rest], ALL),
        ("unknown flags", [head[:8], bytes([head[8] | 0x81]), head[9:], rest], ALL),
        ("two images", [head, rest, lossy], ALL),
        ("alpha before lossless pixels", [head, alpha, rest], ALL),
        ("alpha not announced", [clear_head[:8], b"\0", clear_head[9:], alpha, pixels], ALL),
        ("alpha twice", [clear_head, alpha, alpha, pixels], ALL),
        ("alpha behind", [clear_head, pixels, alpha], ALL),
        ("chunk behind alpha", [clear_head, alpha, junk, pixels], ALL),
        ("alpha without header", [alpha, pixels], NONE),
        ("header alone", [head], NONE),
        ("longer header", [longer_head, rest], NONE),
        ("chunk before pixels", [junk, lossy], NONE),
    ):
        yield f"webp {name}", riff(b"WEBP" + b"".join(chunks)), wanted


def gif(canvas=None, place=(0, 0), clear=None, table=True, interlace=0, background=b"", indices=16, **more) -> bytes:
    """A GIF of one frame, moved on a canvas by hand."""
    image = Image.fromarray(scene()).quantize(indices)
    file = saved(image, "GIF", interlace=interlace, optimize=False)
    if clear is not None:
        file = saved(image, "GIF", interlace=interlace, transparency=clear, optimize=False)
    at = file.index(b",\0\0\0\0")
    file = file[: at + 1] + struct.pack("<HH", *place) + file[at + 5 :]
    if canvas:
        file = file[:6] + struct.pack("<HH", *canvas) + file[10:]
    if not table:
        file = file[:10] + bytes([file[10] & 0x7F]) + file[11:13] + file[13 + 3 * (2 << (file[10] & 7)) :]
    return file


def gifs() -> Iterator[tuple[str, bytes, str]]:
    for interlace in (0, 1):
        for colors in (2, 4, 16, 256):
            yield f"gif {colors} interlace={interlace}", gif(interlace=interlace, indices=colors), ALL
        yield f"gif transparent interlace={interlace}", gif(interlace=interlace, clear=3), ALL
    yield "gif smaller than its canvas", gif((80, 64)), ALL
    yield "gif moved", gif((80, 64), (20, 11)), ALL
    yield "gif moved and transparent", gif((80, 64), (20, 11), clear=5), ALL
    yield "gif larger than its canvas", gif((20, 16), (3, 2)), ALL
    yield "gif no canvas", gif((0, 0)), ALL
    yield "gif no colors", gif(table=False), NONE
    yield "gif transparent outside", gif(clear=200), ALL
    grey = Image.fromarray(scene()).convert("L")
    yield "gif grey", saved(grey, "GIF"), ALL
    yield "gif grey transparent", saved(grey, "GIF", transparency=9), ALL
    yield "gif one bit", saved(grey.convert("1"), "GIF"), ALL
    frames = [Image.fromarray(scene()[:, ::-1])]
    animated = saved(scene(), "GIF", save_all=True, append_images=frames, comment=b"words " * 99)
    yield "gif animated", animated, ALL
    yield "gif animated, cut off behind", animated[:-30], ALL
    plain = gif()
    yield "gif trailing", plain + b"more", ALL
    yield "gif unknown block", plain[: plain.index(b",")] + b"?" + plain[plain.index(b",") :], NONE
    at = 13 + 3 * 16
    fewer = plain[:10] + bytes([plain[10] & 0xF8]) + plain[11:19] + plain[at:]
    yield "gif pixels outside of the table", fewer, NONE


def bmp(
    depth: int, colors: int | None = None, top_down=False, header=40, values=None, table=None, compression=0
) -> bytes:
    """A BMP with a palette, or of 16 to 32 bits."""
    values = scene(channels=1)[..., 0] >> (8 - depth) if values is None and depth <= 8 else values
    if depth <= 8:
        rows = packed(values, depth)
        width = (values.shape[1] * depth + 7) // 8
        rows = [rows[at + 1 : at + 1 + width] for at in range(0, len(rows), width + 1)]
    else:
        full = scene()[..., ::-1]
        extra = np.full((*full.shape[:2], depth // 8 - 3), 7, np.uint8) if depth >= 24 else full
        cells = np.concatenate([full, extra], -1) if depth >= 24 else full[..., :2]
        rows = [row.tobytes() for row in cells]
        values = full
    rows = [row.ljust(-(-len(row) // 4) * 4, b"\0") for row in (rows if top_down else rows[::-1])]
    count = (1 << depth if colors is None else colors) if depth <= 8 else 0
    table = (
        np.random.default_rng(depth).integers(0, 256, (count, 4 if header > 12 else 3), np.uint8)
        if table is None
        else table
    )
    palette = table.astype(np.uint8).tobytes()
    height, width = values.shape[:2]
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, depth)
    else:
        info = struct.pack("<IiiHHI", header, width, -height if top_down else height, 1, depth, compression)
        info += struct.pack("<IIIII", 0, 0, 0, colors or 0, 0).ljust(header - 20, b"\0")
    offset = 14 + len(info) + len(palette)
    body = b"".join(rows)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def run_lengths(file: bytes, depth: int) -> bytes:
    """A BMP's pixels replaced by runs of one byte each."""
    offset = int.from_bytes(file[10:14], "little")
    per_byte = 8 // depth
    row = b"".join(bytes([per_byte if depth < 8 else 1, value]) for value in range(WIDTH // per_byte))
    return file[:offset] + (row + b"\0\0") * HEIGHT + b"\0\1"


def bmps() -> Iterator[tuple[str, bytes, str]]:
    for depth in (1, 4, 8):
        for top_down in (False, True):
            yield f"bmp {depth} top down={top_down}", bmp(depth, top_down=top_down), ALL
        for header in (52, 56, 108, 124):
            yield f"bmp {depth} header {header}", bmp(depth, header=header), ALL
        yield f"bmp {depth} of os/2", bmp(depth, header=12), REFERENCE
        ramp = np.repeat(np.arange(1 << depth)[:, None], 4, axis=1)
        yield f"bmp {depth} grey ramp", bmp(depth, table=ramp), ALL
        yield f"bmp {depth} too many colors", bmp(depth, colors=300), NONE
        few = np.minimum(scene(channels=1)[..., 0] >> (8 - depth), 1)
        black_white = np.array([[0, 0, 0, 0], [255, 255, 255, 0]])
        yield f"bmp {depth} of two colors", bmp(depth, 2, values=few, table=black_white), ALL
        if depth > 1:
            yield f"bmp {depth} outside of the palette", bmp(depth, colors=3), NONE
    for depth in (24, 32):
        for top_down in (False, True):
            yield f"bmp {depth} top down={top_down}", bmp(depth, top_down=top_down), ALL
    yield "bmp of 16 bits", bmp(16), REFERENCE
    yield "bmp grey", saved(Image.fromarray(scene()).convert("L"), "BMP"), ALL
    yield "bmp one bit", saved(Image.fromarray(scene()).convert("1"), "BMP"), ALL
    yield "bmp with a fourth channel", saved(Image.fromarray(scene(channels=4), "RGBA"), "BMP"), ALL
    for depth in (1, 4, 8):
        if depth > 1:
            yield f"bmp {depth} packed", run_lengths(bmp(depth, compression=2 if depth == 4 else 1), depth), REFERENCE
    yield "bmp cut off in its palette", bmp(8)[:200], NONE
    for width in (1, 2, 3, 5, 7, 9):
        for depth in (1, 4, 8):
            yield f"bmp {depth} width {width}", bmp(depth, values=scene(width, 5, 1)[..., 0] >> (8 - depth)), ALL
    yield "bmp last padding", bmp(1, values=scene(5, 5, 1)[..., 0] >> 7)[:-3], ALL


def others() -> Iterator[tuple[str, bytes, str]]:
    image = Image.fromarray(scene())
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16"):
        shown = Image.fromarray(scene(channels=1)[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
        yield f"tiff {mode}", saved(shown or image.convert(mode), "TIFF"), REFERENCE
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield f"tiff {compression}", saved(image, "TIFF", compression=compression), REFERENCE
    for mode in ("1", "L", "RGB"):
        yield f"ppm {mode}", saved(image.convert(mode), "PPM"), REFERENCE
    for form in ("ICO", "TGA", "PCX", "SGI", "JPEG2000", "DDS"):
        yield form, saved(image, form), NONE


def everything() -> Iterator[tuple[str, bytes, str]]:
    for maker in (pngs, jpegs, webps, gifs, bmps, others):
        yield from maker()
    yield from ((name, content, ALL) for name, content, _ in oriented())


def cut() -> Iterator[tuple[str, bytes]]:
    """Files that end too early, which no reader reads."""
    whole = {"png": png(2, 8), "palette": png(3, 4), "interlaced": png(2, 8, interlaced=True), "jpeg": jpeg()}
    whole |= {"grey": saved(Image.fromarray(scene()).convert("L"), "JPEG"), "progressive": jpeg(progressive=True)}
    whole |= {
        "lossy": saved(scene(), "WEBP"),
        "lossless": saved(scene(), "WEBP", lossless=True),
        "webp": webp_with(exif(6)),
    }
    whole |= {"gif": gif(), "bmp 1": bmp(1), "bmp 8": bmp(8), "bmp": bmp(24), "tiff": saved(scene(), "TIFF")}
    whole |= {"ppm": saved(scene(), "PPM")}
    for name, content in whole.items():
        ends = (0, 1, 3, 10, 20, 30, 60, *(len(content) * part // 8 for part in range(1, 8)), len(content) - 9)
        for kept in sorted({min(end, len(content) - 1) for end in ends}):
            yield f"{name} cut at {kept} of {len(content)}", content[:kept]

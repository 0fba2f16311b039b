"""What an image file says before its pixels: `tf_detreg.images.headers` in TensorFlow operations.

Nothing is decompressed here: a file of a few bytes that declares 50,000 × 50,000 pixels costs nothing.
"""

from typing import NamedTuple

import tensorflow as tf

from tf_detreg.images import orientation
from tf_detreg.images.formats import GIF_STARTS
from tf_detreg.images.graph.binary import Content, big, little, same, signed
from tf_detreg.images.headers import (
    BMP_HEADERS,
    JPEG_EMPTY,
    JPEG_FRAMES,
    JPEG_SEGMENTS,
    JUNK,
    MOST_BLOCKS,
    MOST_CHUNKS,
    MOST_SEGMENTS,
    PNG_CRITICAL,
    WEBP_PIXELS,
)

JPEG, PNG, WEBP, GIF, BMP, UNKNOWN = range(6)


class Facts(NamedTuple):
    """What the header of a file says; every field is a scalar, int64 where not stated.

    Args:
        fine: Whether nothing in the header speaks against decoding.
        height: As stored.
        width: As stored.
        exif: Where an EXIF block begins; -1 without one.
        exif_end: Where it ends.
        profile: Where the text of a raw profile begins (PNG); -1 without one.
        profile_end: Where it ends.
        packed: Whether that text is compressed.
        key: Whether a PNG has a tRNS chunk; the transparent index of a GIF, -1 without one.
        at: Where a GIF's frame is described; where a WebP's chunk of alpha begins, -1 without one.
        data: Where a GIF's compressed pixels begin; where a WebP's first chunk that holds pixels begins.
        data_end: Where they end, or the chunk.
    """

    fine: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    exif: tf.Tensor
    exif_end: tf.Tensor
    profile: tf.Tensor
    profile_end: tf.Tensor
    packed: tf.Tensor
    key: tf.Tensor
    at: tf.Tensor
    data: tf.Tensor
    data_end: tf.Tensor


def format_of(content: Content) -> tf.Tensor:
    """Return JPEG, PNG, WEBP, GIF, BMP or UNKNOWN, by the first bytes."""
    first = content.head(0, 12)
    matches = [
        same(first, b"\xff\xd8\xff"),
        same(first, b"\x89PNG\r\n\x1a\n"),
        same(first, b"RIFF") & same(first[8:], b"WEBP"),
        tf.reduce_any([same(first, start) for start in GIF_STARTS]),
        same(first, b"BM"),
        tf.constant(True),
    ]
    return tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32)


def facts_of(content: Content, form: tf.Tensor) -> Facts:
    """Return what the header says, by the file's format."""
    readers = (jpeg, png, webp, gif, bmp, lambda _: _facts(False, 0, 0))
    packed = tf.switch_case(form, [lambda read=read: tf.stack(read(content)) for read in readers])
    return Facts(*tf.unstack(packed, len(Facts._fields)))


def _facts(fine: tf.Tensor, height: tf.Tensor, width: tf.Tensor, **more: tf.Tensor) -> Facts:
    fields = dict.fromkeys(Facts._fields, -1) | {"fine": fine, "height": height, "width": width} | more
    return Facts(*(tf.cast(fields[name], tf.int64) for name in Facts._fields))


def jpeg(content: Content) -> Facts:
    def step(
        at: tf.Tensor, state: tf.Tensor, frame: tf.Tensor, exif: tf.Tensor, exif_end: tf.Tensor, adobe: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        head = content.head(at, 10)
        mark, kind = head[0], head[1]
        length = big(head[2:4])
        is_mark = mark == 0xFF
        empty, scan = _among(kind, JPEG_EMPTY), is_mark & (kind == 0xDA)
        is_frame = is_mark & _among(kind, JPEG_FRAMES)
        segment = is_frame | (is_mark & _among(kind, JPEG_SEGMENTS))
        wrong = at + 2 > content.end
        wrong |= is_mark & ~segment & ~empty & ~scan & (kind != 0xFF)
        wrong |= segment & ((length < 2) | (at + 2 + length > content.end))
        wrong |= is_frame & ((length < 8) | (frame >= 0))
        wrong |= scan & (frame < 0)
        state = tf.where(wrong, 2, tf.where(scan, 1, 0))
        frame = tf.where(is_frame, at, frame)
        is_exif = segment & (kind == 0xE1) & (exif < 0) & (length >= 8) & same(head[4:], orientation.PREFIX)
        exif, exif_end = tf.where(is_exif, at + 4, exif), tf.where(is_exif, at + 2 + length, exif_end)
        adobe |= segment & (kind == 0xEE) & (length >= 14) & same(head[4:], b"Adobe")
        after = tf.where(kind == 0xFF, at + 1, tf.where(empty, at + 2, at + 2 + length))
        after = tf.where(is_mark, after, at + _to_mark(content, at))
        return tf.where(scan, at, after), state, frame, exif, exif_end, adobe

    nowhere = tf.constant(-1, tf.int64)
    at, state, frame, exif, exif_end, adobe = tf.while_loop(
        lambda at, state, *_: state == 0,
        step,
        (tf.constant(2, tf.int64), 0, nowhere, nowhere, nowhere, False),
        maximum_iterations=MOST_SEGMENTS,
        parallel_iterations=1,
    )
    depth, height, width, channels = tf.split(content.head(frame + 4, 6), (1, 2, 2, 1))
    known = (channels[0] == 1) | (channels[0] == 3) | ((channels[0] == 4) & adobe)
    fine = (state == 1) & (depth[0] == 8) & known
    fine = tf.cond(fine, lambda: _scans_end(content, at), lambda: False)
    return _facts(fine, big(height), big(width), exif=exif, exif_end=exif_end)


def _among(kind: tf.Tensor, kinds: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(kind == tf.constant(kinds, tf.int64))


def _scans_end(content: Content, start: tf.Tensor) -> tf.Tensor:
    """Return whether the scans of a JPEG from `start` on lead to its end mark, over whole segments."""
    first, second = content.bytes[start:-1], content.bytes[start + 1 :]
    stuffed = (second == 0) | (second == 0xFF) | ((second >= 0xD0) & (second <= 0xD7))
    marks = tf.concat([start + tf.where((first == 0xFF) & ~stuffed)[:, 0], content.end[None]], axis=0)

    def step(at: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        at = tf.gather(marks, tf.searchsorted(marks, at[None])[0])
        head = content.head(at, 4)
        length = big(head[2:])
        after = at + 2 + length
        ends = head[1] == 0xD9
        wrong = (at >= content.end) | (after > content.end) | (length < 2)
        wrong |= ~_among(head[1], (0xDA, *JPEG_SEGMENTS))
        return after, tf.where(ends, 1, tf.where(wrong, 2, 0))

    _, state = tf.while_loop(
        lambda _, state: state == 0, step, (start, 0), maximum_iterations=MOST_SEGMENTS, parallel_iterations=1
    )
    return state == 1


def _to_mark(content: Content, at: tf.Tensor) -> tf.Tensor:
    """Return how many bytes to pass over to come to the next mark, or as far as one step leads."""
    window = tf.concat([content.bytes[at : at + JUNK], [255]], axis=0)
    found = tf.argmax(tf.cast(window == 255, tf.uint8))
    return tf.where(at + found < content.end, found, JUNK)


def _holds_profile(content: Content, at: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """Return whether a chunk of a PNG is text that holds Exif, as ImageMagick writes it."""
    length, longest = big(head[:4]), len(orientation.RAW_PROFILES[0])
    text = same(head[4:], b"tEXt") | same(head[4:], b"zTXt")
    keyword = content.head(at + 8, longest)
    known = tf.reduce_any([same(keyword, one) for one in orientation.RAW_PROFILES])
    return text & (length <= orientation.LONGEST_PROFILE) & (length >= longest) & known


def _is_broken(content: Content, head: tf.Tensor, behind: tf.Tensor) -> tf.Tensor:
    """Return whether a chunk of a PNG goes beyond the file, or is of a critical kind that nobody knows."""
    letters = head[4:] | 32
    alphabetic = tf.reduce_all((letters >= ord("a")) & (letters <= ord("z")))
    known = tf.reduce_any(tf.stack([same(head[4:], kind) for kind in PNG_CRITICAL]))
    return (behind > content.end) | ~alphabetic | (((head[4] & 32) == 0) & ~known)


def png(content: Content) -> Facts:
    def step(
        at: tf.Tensor,
        count: tf.Tensor,
        state: tf.Tensor,
        pixels: tf.Tensor,
        exif: tf.Tensor,
        exif_end: tf.Tensor,
        profile: tf.Tensor,
        profile_end: tf.Tensor,
        packed: tf.Tensor,
        key: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        head = content.head(at, 8)
        behind = at + 12 + big(head[:4])

        def name(text: bytes) -> tf.Tensor:
            return same(head[4:], text)

        is_exif = name(b"eXIf") & (exif < 0)
        exif, exif_end = tf.where(is_exif, at + 8, exif), tf.where(is_exif, behind - 4, exif_end)
        is_profile = _holds_profile(content, at, head) & (profile < 0)
        profile = tf.where(is_profile, at + 8 + len(orientation.RAW_PROFILES[0]), profile)
        profile_end = tf.where(is_profile, behind - 4, profile_end)
        packed = tf.where(is_profile, name(b"zTXt"), packed)
        key |= name(b"tRNS") & ~pixels
        pixels |= name(b"IDAT")
        state = tf.where(_is_broken(content, head, behind), 2, tf.where(name(b"IEND"), 1, 0))
        at, count = _over_pixels(content, behind, count + 1, pixels)
        return at, count, state, pixels, exif, exif_end, profile, profile_end, packed, key

    nowhere, none = tf.constant(-1, tf.int64), tf.constant(False)
    loop = tf.while_loop(
        lambda at, count, state, *_: (state == 0) & (count < MOST_CHUNKS),
        step,
        (tf.constant(8, tf.int64), 0, 0, none, nowhere, nowhere, nowhere, nowhere, none, none),
        parallel_iterations=1,
    )
    _, _, state, pixels, exif, exif_end, profile, profile_end, packed, key = loop
    height, width = content.big(20, 4), content.big(16, 4)
    deep = (content.byte(25) == 2) & (content.byte(24) == 16)
    fine = (state == 1) & pixels & ~(deep & key) & content.same(8, b"\0\0\0\rIHDR")
    return _facts(
        fine,
        height,
        width,
        exif=exif,
        exif_end=exif_end,
        profile=profile,
        profile_end=profile_end,
        packed=packed,
        key=key,
    )


def _over_pixels(content: Content, at: tf.Tensor, count: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Pass over IDAT chunks behind the first one, quickly: a large image has thousands."""

    def follows(at: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        fits = at + 12 + content.big(at, 4) <= content.end
        return pixels & content.same(at + 4, b"IDAT") & fits & (count < MOST_CHUNKS)

    step = lambda at, count: (at + 12 + content.big(at, 4), count + 1)  # noqa: E731
    return tf.while_loop(follows, step, (at, count), parallel_iterations=1)


def webp(content: Content) -> Facts:
    head = content.head(0, 30)
    bits = little(head[21:25])
    lossy = [little(head[28:30]) & 0x3FFF, little(head[26:28]) & 0x3FFF]
    lossless = [1 + ((bits // 2**14) & 0x3FFF), 1 + (bits & 0x3FFF)]
    canvas = [1 + little(head[27:30]), 1 + little(head[24:27])]
    extended, flags = same(head[12:], b"VP8X"), head[20]
    size = tf.where(extended, canvas, tf.where(same(head[12:], b"VP8L"), lossless, lossy))
    stop = little(head[4:8]) + 8

    def step(
        at: tf.Tensor, exif: tf.Tensor, exif_end: tf.Tensor, alpha: tf.Tensor, data: tf.Tensor, data_end: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        head = content.head(at, 8)
        length = little(head[4:])
        found = same(head, b"EXIF") & (exif < 0)
        exif, exif_end = tf.where(found, at + 8, exif), tf.where(found, at + 8 + length, exif_end)
        after = at + 8 + length + length % 2
        alpha = tf.where(same(head, b"ALPH") & (alpha < 0) & (data < 0), at, alpha)
        first = tf.reduce_any(tf.stack([same(head, kind) for kind in WEBP_PIXELS])) & (data < 0)
        return after, exif, exif_end, alpha, tf.where(first, at, data), tf.where(first, after, data_end)

    nowhere = tf.constant(-1, tf.int64)
    at, exif, exif_end, alpha, data, data_end = tf.while_loop(
        lambda at, *_: at + 8 <= stop,
        step,
        (tf.constant(12, tf.int64), *[nowhere] * 5),
        maximum_iterations=MOST_CHUNKS,
        parallel_iterations=1,
    )
    announced = extended & (flags & 8 != 0)
    exif = tf.where(announced, exif, -1)
    # TensorFlow 2.20's decoder writes past its buffer on frames of an animation.
    animated = extended & (flags & 2 != 0)
    has_pixels = tf.where(extended, (data >= 0) & (little(head[16:20]) == 10), data == 12)
    fine = (content.end >= 30) & (stop <= content.end) & (at == stop) & has_pixels & ~animated
    return _facts(fine, size[0], size[1], exif=exif, exif_end=exif_end, at=alpha, data=data, data_end=data_end)


def gif(content: Content) -> Facts:
    flags = content.byte(10)
    canvas = [content.little(8, 2), content.little(6, 2)]

    def step(at: tf.Tensor, state: tf.Tensor, clear: tf.Tensor) -> tuple[tf.Tensor, ...]:
        head = content.head(at, 8)
        extension = head[0] == ord("!")
        control = extension & (head[1] == 0xF9) & (head[2] == 4) & (at + 8 <= content.end)
        clear = tf.where(control, tf.where(head[3] & 1 != 0, head[6], -1), clear)
        behind = tf.cond(extension, lambda: _over_blocks(content, at + 2), lambda: at)
        image = (head[0] == ord(",")) & (at + 10 <= content.end)
        wrong = (~extension & ~image) | (behind < 0)
        return behind, tf.where(wrong, 2, tf.where(image, 1, 0)), clear

    at, state, clear = tf.while_loop(
        lambda at, state, clear: state == 0,
        step,
        (13 + 3 * _colors(flags), 0, tf.constant(-1, tf.int64)),
        maximum_iterations=MOST_BLOCKS,
        parallel_iterations=1,
    )
    place = content.head(tf.maximum(at, 0), 10)
    left, top, columns, rows = (little(place[i : i + 2]) for i in (1, 3, 5, 7))
    own = _colors(place[9])
    colors = tf.where(own > 0, own, _colors(flags))
    data = at + 10 + 3 * own
    data_end = tf.cond(state == 1, lambda: _over_blocks(content, data + 1), lambda: tf.constant(-1, tf.int64))
    fine = (content.end >= 13) & (state == 1) & (data_end >= 0) & (colors > 0) & (rows > 0) & (columns > 0)
    height, width = tf.maximum(canvas[0], top + rows), tf.maximum(canvas[1], left + columns)
    key = tf.where(clear < colors, clear, -1)
    return _facts(fine, height, width, key=key, at=at, data=data, data_end=data_end)


def _colors(flags: tf.Tensor) -> tf.Tensor:
    """Return length of the color table that a byte of flags announces; 0 without one."""
    return tf.where(flags & 0x80 != 0, tf.bitwise.left_shift(tf.constant(2, tf.int64), flags & 7), 0)


def _over_blocks(content: Content, at: tf.Tensor) -> tf.Tensor:
    """Return where a chain of blocks, each behind its length and the last one empty, ends; -1 if it is cut off."""
    length = tf.constant(1, tf.int64)
    at, length = tf.while_loop(
        lambda at, length: (length > 0) & (at < content.end),
        lambda at, length: _block(content, at),
        (at, length),
        maximum_iterations=MOST_BLOCKS,
        parallel_iterations=1,
    )
    return tf.where(length == 0, at, -1)


def _block(content: Content, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    length = tf.cast(content.bytes[at], tf.int64)
    return at + 1 + length, length


def bmp(content: Content) -> Facts:
    size, width, height = (content.little(at, 4) for at in (14, 18, 22))
    fine = _among(size, BMP_HEADERS) & (content.end >= 14 + size)
    return _facts(fine, tf.abs(signed(height)), signed(width))

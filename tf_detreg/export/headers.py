"""What an encoded image says about itself, read inside the graph: its format, size and EXIF orientation.

Nothing is decompressed here: this is the look that comes before decoding, so that a file of a few bytes that declares
50,000 × 50,000 pixels costs nothing.
"""

import tensorflow as tf

JPEG, PNG, WEBP, GIF, BMP, UNKNOWN = range(6)
_SEGMENTS = 64  # the most JPEG segments, PNG or WebP chunks that are searched for an orientation


class Header:
    """The start of an image file, given as a scalar string tensor.

    Example:
        >>> header = Header(tf.io.encode_png(tf.zeros((3, 5, 3), tf.uint8)))
        >>> int(header.format()) == PNG, header.size().numpy().tolist(), int(header.orientation())
        (True, [3, 5], 1)
    """

    def __init__(self, content: tf.Tensor):
        self.content = content
        # Padded, so that the first bytes can be looked at whatever comes.
        self.bytes = tf.cast(tf.io.decode_raw(tf.strings.join([content, b"\0" * 32]), tf.uint8), tf.int32)
        self.end = tf.size(self.bytes) - 32
        self.first = self.bytes[:32]

    def format(self) -> tf.Tensor:
        """JPEG, PNG, WEBP, GIF, BMP or UNKNOWN, by the first bytes."""

        def starts(at: int, text: bytes):
            return tf.reduce_all(self.first[at : at + len(text)] == tf.constant(list(text)))

        matches = tf.stack(
            [
                starts(0, b"\xff\xd8\xff"),
                starts(0, b"\x89PNG\r\n\x1a\n"),
                starts(0, b"RIFF") & starts(8, b"WEBP"),
                starts(0, b"GIF8"),
                starts(0, b"BM"),
                True,
            ]
        )
        return tf.argmax(tf.cast(matches, tf.int32), output_type=tf.int32)

    def size(self) -> tf.Tensor:
        """int64 [height, width] as declared, before any turning; raises inside the graph where there is none."""
        read = [
            lambda: tf.cast(tf.io.extract_jpeg_shape(self.content)[:2], tf.int64),
            lambda: tf.stack([_big(self.first, 20, 4), _big(self.first, 16, 4)]),
            self._webp_size,
            lambda: tf.stack([_little(self.first, 8, 2), _little(self.first, 6, 2)]),
            lambda: tf.stack([_signed(_little(self.first, 22, 4)), _signed(_little(self.first, 18, 4))]),
            lambda: tf.zeros(2, tf.int64),
        ]
        return tf.switch_case(self.format(), read)

    def orientation(self) -> tf.Tensor:
        """The EXIF orientation, 1..8; 1 where none is stated."""
        nowhere = lambda: tf.constant(-1)  # noqa: E731
        found = tf.switch_case(self.format(), [self._jpeg_exif, self._png_exif, self._webp_exif] + [nowhere] * 3)
        return tf.cond(found >= 0, lambda: self._tiff_orientation(found), lambda: tf.constant(1))

    def grey_depth(self) -> tf.Tensor:
        """Bits a pixel of a grey PNG without transparency, 0 of any other PNG."""
        return tf.where(self.first[25] == 0, self.first[24], 0)

    def animated_webp(self) -> tf.Tensor:
        """Whether this is a WebP with frames: TensorFlow 2.20's decoder writes past its buffer on those."""
        return (self.format() == WEBP) & (self.first[15] == ord("X")) & ((self.first[20] & 2) != 0)

    def _webp_size(self) -> tf.Tensor:
        bits = _little(self.first, 21, 4)
        lossy = tf.stack([_little(self.first, 28, 2) & 0x3FFF, _little(self.first, 26, 2) & 0x3FFF])
        lossless = 1 + (tf.stack([bits // 2**14, bits]) & 0x3FFF)
        canvas = 1 + tf.stack([_little(self.first, 27, 3), _little(self.first, 24, 3)])
        kind = self.first[15]
        return tf.where(kind == ord("X"), canvas, tf.where(kind == ord("L"), lossless, lossy))

    def _find(self, start: int, step) -> tf.Tensor:
        """Follows segments from `start`; `step(position, head)` returns (where the next one is or -1, found or -1)."""
        # The wire between two turns of the loop: next position, and where the TIFF block was found.
        _, found = tf.while_loop(
            lambda position, found: (position >= 0) & (position < self.end) & (found < 0),
            lambda position, found: step(position, tf.gather(self.bytes, position + tf.range(16))),
            (tf.constant(start), tf.constant(-1)),
            maximum_iterations=_SEGMENTS,
        )
        return found

    def _jpeg_exif(self) -> tf.Tensor:
        def step(position, head):
            # Application segments and comments stand first; EXIF is one of them.
            application = (head[0] == 0xFF) & (((head[1] >= 0xE0) & (head[1] <= 0xEF)) | (head[1] == 0xFE))
            is_exif = (head[1] == 0xE1) & _same(head, 4, b"Exif\0\0")
            following = position + 2 + tf.cast(_big(head, 2, 2), tf.int32)
            return tf.where(application, following, -1), tf.where(is_exif, position + 10, -1)

        return self._find(2, step)

    def _png_exif(self) -> tf.Tensor:
        def step(position, head):
            length = tf.cast(_big(head, 0, 4), tf.int32)
            over = _same(head, 4, b"IDAT") | (length < 0)
            return tf.where(over, -1, position + 12 + length), tf.where(_same(head, 4, b"eXIf"), position + 8, -1)

        return self._find(8, step)

    def _webp_exif(self) -> tf.Tensor:
        def step(position, head):
            length = tf.cast(_little(head, 4, 4), tf.int32)
            tiff = position + 8 + tf.where(_same(head, 8, b"Exif\0\0"), 6, 0)
            following = tf.where(length < 0, -1, position + 8 + length + length % 2)
            return following, tf.where(_same(head, 0, b"EXIF"), tiff, -1)

        extended = (self.first[15] == ord("X")) & ((self.first[20] & 8) != 0)
        return tf.cond(extended, lambda: self._find(12, step), lambda: tf.constant(-1))

    def _tiff_orientation(self, tiff: tf.Tensor) -> tf.Tensor:
        """Tag 0x0112 of the first directory of the TIFF block at `tiff`."""

        def two(positions):
            inside = (positions >= 0) & (positions < self.end)
            pair = [tf.gather(self.bytes, tf.where(inside, positions, 0) + i) for i in (0, 1)]
            value = tf.where(little, pair[0] + 256 * pair[1], 256 * pair[0] + pair[1])
            return tf.where(inside, value, 0)

        head = tf.gather(self.bytes, tf.minimum(tiff, self.end) + tf.range(8))
        little = head[0] == ord("I")
        directory = tiff + tf.cast(tf.where(little, _little(head, 4, 4), _big(head, 4, 4)), tf.int32)
        entries = directory + 2 + 12 * tf.range(tf.minimum(two(directory), 512))
        value = tf.reduce_max(tf.concat([tf.where(two(entries) == 0x0112, two(entries + 8), 0), [0]], axis=0))
        return tf.where((value >= 1) & (value <= 8), value, 1)


def _little(values: tf.Tensor, start: int, count: int) -> tf.Tensor:
    part = tf.cast(values[start : start + count], tf.int64)
    return tf.reduce_sum(part * tf.constant([256**i for i in range(count)], tf.int64))


def _big(values: tf.Tensor, start: int, count: int) -> tf.Tensor:
    return _little(values[start : start + count][::-1], 0, count)


def _signed(value: tf.Tensor) -> tf.Tensor:
    """The size of a 32-bit two's complement number: BMP rows may run upward or downward."""
    return tf.where(value >= 2**31, 2**32 - value, value)


def _same(values: tf.Tensor, start: int, text: bytes) -> tf.Tensor:
    return tf.reduce_all(values[start : start + len(text)] == tf.constant(list(text)))

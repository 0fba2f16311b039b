"""Bytes of a file inside the graph: numbers at positions, comparisons, and strings put together anew."""

import tensorflow as tf

_PADDING = 64  # zeros behind the file, so that a head can be gathered at its very end


class Content:
    """The bytes of a file, given as a scalar string tensor.

    Example:
        >>> content = Content(tf.constant(b"\\x01\\x02ab"))
        >>> int(content.big(0, 2)), int(content.little(0, 2)), bool(content.same(2, b"ab"))
        (258, 513, True)
    """

    def __init__(self, text: tf.Tensor) -> None:
        self.text = text
        self.bytes = tf.io.decode_raw(tf.strings.join([text, b"\0" * _PADDING]), tf.uint8)
        self.end = tf.size(self.bytes, tf.int64) - _PADDING

    def head(self, at: tf.Tensor, count: int) -> tf.Tensor:
        """Return `count` bytes from `at` on, as int64; zeros where they lie outside of the file."""
        at = tf.convert_to_tensor(at, tf.int64)
        inside = (at >= 0) & (at < self.end)
        part = tf.gather(self.bytes, tf.where(inside, at, 0) + tf.range(count, dtype=tf.int64))
        return tf.where(inside, tf.cast(part, tf.int64), 0)

    def byte(self, at: tf.Tensor) -> tf.Tensor:
        return self.head(at, 1)[0]

    def big(self, at: tf.Tensor, count: int) -> tf.Tensor:
        return big(self.head(at, count))

    def little(self, at: tf.Tensor, count: int) -> tf.Tensor:
        return little(self.head(at, count))

    def same(self, at: tf.Tensor, text: bytes) -> tf.Tensor:
        return same(self.head(at, len(text)), text)

    def part(self, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Return a piece as a string."""
        return tf.strings.substr(self.text, start, tf.maximum(stop - start, 0))


def little(values: tf.Tensor) -> tf.Tensor:
    """Return the number whose lowest byte comes first."""
    return tf.reduce_sum(values * tf.constant([256**i for i in range(values.shape[0])], tf.int64))


def big(values: tf.Tensor) -> tf.Tensor:
    """Return the number whose highest byte comes first."""
    return little(values[::-1])


def signed(value: tf.Tensor) -> tf.Tensor:
    """Return a 32-bit number as two's complement."""
    return tf.where(value >= 2**31, value - 2**32, value)


def same(values: tf.Tensor, text: bytes) -> tf.Tensor:
    """Return whether bytes begin with a text."""
    return tf.reduce_all(values[: len(text)] == tf.constant(list(text), tf.int64))


def text_of(values: tf.Tensor) -> tf.Tensor:
    """Return numbers 0..255 as a string."""
    return tf.strings.reduce_join(tf.gather(tf.constant([bytes([i]) for i in range(256)]), values))

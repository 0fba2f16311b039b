"""Whether the compressed pixels of a GIF use only codes that are defined: `tf_detreg.images.lzw` in the graph."""

import tensorflow as tf

from tf_detreg.images.graph.binary import Content
from tf_detreg.images.lzw import MOST_CODES, MOST_STEPS, ROOT_BITS, WIDTHS, WINDOW


def codes_are_defined(content: Content, at: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Return whether all codes up to the end code, or to the end of the data, are defined.

    Args:
        content: The file.
        at: Where the compressed pixels begin, with the number of bits of a pixel.
        end: Behind their last block, which is empty.
    """
    bits = tf.cast(content.byte(at), tf.int32)
    fits = (bits >= ROOT_BITS[0]) & (bits <= ROOT_BITS[-1])
    return tf.cond(fits, lambda: _defined(_joined(content, at + 1, end), bits), lambda: False)


def _defined(data: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    shift = tf.bitwise.left_shift
    length = tf.size(data)
    padded = tf.concat([data, tf.zeros([3], tf.uint8)], axis=0)
    clear = shift(1, bits)

    def step(start: tf.Tensor, count: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        number = count + tf.range(WINDOW)
        free = tf.minimum(clear + 2 + tf.maximum(number - 1, 0), MOST_CODES)
        widths = tf.maximum(tf.gather(tf.constant(WIDTHS), free), bits + 1)
        ends = start + tf.cumsum(tf.cast(widths, tf.int64))  # a large file has more bits than 32 can count
        begins = ends - tf.cast(widths, tf.int64)
        place = tf.minimum(tf.cast(begins // 8, tf.int32), length)
        three = [shift(tf.cast(tf.gather(padded, place + i), tf.int32), 8 * i) for i in range(3)]
        value = tf.bitwise.right_shift(three[0] | three[1] | three[2], tf.cast(begins % 8, tf.int32))
        codes = value & (shift(tf.ones_like(widths), widths) - 1)
        cut = ends > 8 * tf.cast(length, tf.int64)
        stops = tf.where(cut | (codes == clear) | (codes == clear + 1))[:, 0]
        stop = tf.concat([stops, [WINDOW]], axis=0)[0]
        most = tf.where(number == 0, clear - 1, tf.minimum(free, MOST_CODES - 1))
        wrong = tf.reduce_any((codes > most)[:stop])
        last = tf.minimum(stop, WINDOW - 1)
        full = stop == WINDOW
        goes_on = full | (~cut[last] & (codes[last] == clear))
        return ends[last], tf.where(full, count + WINDOW, 0), tf.where(wrong, 2, tf.where(goes_on, 0, 1))

    _, _, state = tf.while_loop(
        lambda start, count, state: state == 0,
        step,
        (tf.constant(0, tf.int64), 0, 0),
        maximum_iterations=MOST_STEPS,
        parallel_iterations=1,
    )
    return state == 1


def _joined(content: Content, at: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Return the bytes of a chain of blocks, each behind its length and the last one empty."""
    lengths = tf.TensorArray(tf.int64, size=0, dynamic_size=True, element_shape=())

    def step(at: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return at + 1 + tf.cast(content.bytes[at], tf.int64), lengths.write(lengths.size(), at)

    _, lengths = tf.while_loop(lambda at, _: at < end, step, (at, lengths), parallel_iterations=1)
    places = lengths.stack() - at
    is_length = tf.scatter_nd(places[:, None], tf.ones_like(places, tf.int32), (end - at)[None])
    return tf.boolean_mask(content.bytes[at:end], is_length == 0)

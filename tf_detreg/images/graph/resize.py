"""Pillow's antialiased bilinear resize inside the graph, to the last bit."""

import tensorflow as tf

_BITS = 22  # Pillow's fixed-point precision for 8-bit resizing


def resize(picture: tf.Tensor, box: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """Return Pillow's bilinear resize of `box`, rounded to 8 bits after each of its two passes."""

    def rows(image: tf.Tensor) -> tf.Tensor:
        return _shrink(image, box[0, 0], box[1, 0], target[0])

    def columns(image: tf.Tensor) -> tf.Tensor:
        turned = _shrink(tf.transpose(image, (1, 0, 2)), box[0, 1], box[1, 1], target[1])
        return tf.transpose(turned, (1, 0, 2))

    # Pillow does the height first where that drops much more, which shows in the rounding.
    height, width = tf.shape(picture)[0], tf.shape(picture)[1]
    tall = (height > target[0]) & (height - target[0] > 2 * (width - target[1]))
    resized = tf.cond(tall, lambda: columns(rows(picture)), lambda: rows(columns(picture)))
    return tf.ensure_shape(resized, (*target, 3))


def _shrink(picture: tf.Tensor, low: tf.Tensor, high: tf.Tensor, count: int) -> tf.Tensor:
    """Resample the first axis from [low, high) to `count` rows with a triangle filter."""
    size = tf.shape(picture)[0]
    # Pillow takes its box as 32-bit floats.
    low, high = tf.cast(low, tf.float32), tf.minimum(tf.cast(high, tf.float32), tf.cast(size, tf.float32))
    scale = tf.cast(high - low, tf.float64) / count
    low = tf.cast(low, tf.float64)
    support = tf.maximum(scale, 1.0)
    center = low + (tf.range(count, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(center - support + 0.5, tf.int32), 0)
    behind = tf.minimum(tf.cast(center + support + 0.5, tf.int32), size)
    taps = tf.cast(tf.math.ceil(support), tf.int32) * 2 + 1
    positions = first[:, None] + tf.range(taps)
    distance = (tf.cast(positions, tf.float64) - center[:, None] + 0.5) / support
    weights = tf.where(positions < behind[:, None], tf.maximum(1.0 - tf.abs(distance), 0.0), 0.0)
    weights = weights / tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.cast(weights * (1 << _BITS) + 0.5, tf.int32)
    positions = tf.minimum(positions, size - 1)

    def add(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.cast(tf.gather(picture, positions[:, tap]), tf.int32)
        return tap + 1, total + rows * weights[:, tap, None, None]

    start = tf.fill((count, tf.shape(picture)[1], 3), 1 << (_BITS - 1))
    _, total = tf.while_loop(lambda tap, _: tap < taps, add, (tf.constant(0), start), parallel_iterations=1)
    return tf.cast(tf.clip_by_value(tf.bitwise.right_shift(total, _BITS), 0, 255), tf.uint8)

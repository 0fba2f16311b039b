"""BMP pixels inside the graph: palettes of 1, 4 and 8 bits, and 24 or 32 bits a pixel, none of them compressed."""

import tensorflow as tf

from tf_detreg.images.graph.binary import Content, signed


def decode_bmp(content: Content, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return uint8 `(h, w, 3)`; raise inside the graph for any other kind."""
    depth, size = content.little(28, 2), content.little(14, 4)
    with_palette = depth <= 8
    known = tf.reduce_any(depth == tf.constant([1, 4, 8, 24, 32], tf.int64)) & (content.little(30, 4) == 0)
    stated = content.little(46, 4)
    most = tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.minimum(depth, 8))
    colors = tf.where(with_palette, tf.where(stated == 0, most, stated), 0)
    start, offset = 14 + size, content.little(10, 4)
    data = tf.where(
        with_palette, tf.where(offset > start, offset, start + 4 * colors), tf.where(offset > 0, offset, start)
    )
    stride, used = (width * depth + 31) // 32 * 4, (width * depth + 7) // 8
    whole = data + stride * (height - 1) + used <= content.end
    checks = [
        tf.debugging.Assert(known & whole, ["not read here, or cut off"]),
        tf.debugging.Assert((colors <= most) & (start + 4 * colors <= content.end), ["palette"]),
    ]
    with tf.control_dependencies(checks):
        # The last row may lack its padding.
        pixels = tf.concat([content.bytes[: content.end], tf.zeros([3], tf.uint8)], axis=0)[
            data : data + stride * height
        ]
    rows = tf.reshape(pixels, tf.stack([height, stride]))[:, :used]

    def indexed() -> tf.Tensor:
        table = tf.reshape(content.bytes[start : start + 4 * colors], (-1, 4))[:, 2::-1]
        unpacked = [lambda bits=bits: _unpacked(rows, bits) for bits in (1, 4, 8)]
        indices = tf.switch_case(tf.where(depth == 1, 0, tf.where(depth == 4, 1, 2)), unpacked)[:, :width]
        return tf.gather(table, tf.cast(indices, tf.int32))  # raises where an index has no color

    def direct() -> tf.Tensor:
        return tf.reshape(rows, tf.stack([height, width, depth // 8]))[..., 2::-1]

    picture = tf.ensure_shape(tf.cond(with_palette, indexed, direct), (None, None, 3))
    upward = signed(content.little(22, 4)) > 0
    return tf.cond(upward, lambda: tf.reverse(picture, [0]), lambda: picture)


def _unpacked(rows: tf.Tensor, bits: int) -> tf.Tensor:
    if bits == 8:
        return rows
    shifts = tf.constant(list(range(8 - bits, -1, -bits)), tf.uint8)
    parts = tf.bitwise.right_shift(rows[..., None], shifts) & (2**bits - 1)
    return tf.reshape(parts, tf.stack([tf.shape(rows)[0], -1]))

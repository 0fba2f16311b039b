"""PNG pixels inside the graph, on white where transparent."""

import tensorflow as tf

from tf_detreg.images.color import WHITE
from tf_detreg.images.graph.binary import Content


def decode_png(content: Content, has_key: tf.Tensor) -> tf.Tensor:
    """Return uint8 `(h, w, 3)`.

    Args:
        content: The file.
        has_key: Whether it has a tRNS chunk, which libpng ignores where its checksum is wrong.
    """
    depth, kind = content.byte(24), content.byte(25)
    has_key = has_key > 0
    text = content.text

    def palette() -> tf.Tensor:
        # As many channels as there are: where four are asked for, opaque palettes of few bits come out transparent.
        return opaque(tf.io.decode_png(text, 0))

    def small_gray() -> tf.Tensor:
        # libpng spreads few bits over 0..255 on the way to three channels, or where it turns the key into alpha.
        plain = lambda: tf.io.decode_png(text, 3)  # noqa: E731
        return tf.cond(has_key, lambda: _by_key(tf.io.decode_png(text, 4), plain), plain)

    def gray16() -> tf.Tensor:
        return tf.cond(has_key, lambda: _gray16(tf.io.decode_png(text, 4, tf.uint16)), lambda: _gray16_plain(text))

    def color() -> tf.Tensor:
        return on_white(tf.io.decode_png(text, 4))

    def plain() -> tf.Tensor:
        return tf.io.decode_png(text, 3)

    branch = tf.where(kind == 3, 0, tf.where((kind == 0) & (depth < 8), 1, tf.where((kind == 0) & (depth == 16), 2, 3)))
    branch = tf.where((branch == 3) & (kind < 4) & ~has_key, 4, branch)
    picture = tf.switch_case(branch, [palette, small_gray, gray16, color, plain])
    return tf.ensure_shape(picture, (None, None, 3))


def opaque(picture: tf.Tensor) -> tf.Tensor:
    """Return three channels of three or four."""
    return tf.cond(tf.shape(picture)[-1] == 4, lambda: on_white(picture), lambda: picture)


def on_white(rgba: tf.Tensor) -> tf.Tensor:
    """Return Pillow's `alpha_composite` on an opaque white ground, with its integer rounding."""
    values = tf.cast(tf.ensure_shape(rgba, (None, None, 4)), tf.int32)
    color, alpha = values[..., :3], values[..., 3:]
    shift = tf.bitwise.right_shift
    mixed = (color * alpha + WHITE * (255 - alpha)) * 128 + (128 << 7)
    return tf.cast(shift(shift(shift(mixed, 8) + mixed, 8), 7), tf.uint8)


def _by_key(rgba: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    alpha = rgba[..., 3]
    keyed = tf.reduce_all((alpha == 0) | (alpha == 255))
    return tf.cond(keyed, lambda: on_white(rgba), otherwise)


def _gray16(rgba: tf.Tensor) -> tf.Tensor:
    return tf.where(rgba[..., 3:] == 0, tf.constant(WHITE, tf.uint8), _eight_bits(rgba[..., :1]))


def _gray16_plain(text: tf.Tensor) -> tf.Tensor:
    return _eight_bits(tf.io.decode_png(text, 1, dtype=tf.uint16))


def _eight_bits(values: tf.Tensor) -> tf.Tensor:
    values = tf.cast(values, tf.float32)
    # Some files hold 8-bit values in 16 bits.
    values = tf.where(tf.reduce_max(values) > 255, tf.round(values / 257), values)
    return tf.repeat(tf.cast(values, tf.uint8), 3, axis=-1)

"""WebP pixels inside the graph: one image, on white where transparent."""

import tensorflow as tf

from tf_detreg.images.graph.binary import Content, little, text_of
from tf_detreg.images.graph.headers import Facts
from tf_detreg.images.graph.png import opaque
from tf_detreg.images.headers import WEBP_WITH_ALPHA


def decode_webp(content: Content, facts: Facts) -> tf.Tensor:
    """Return uint8 `(h, w, 3)`; raise inside the graph where the pixels' size is not the file's.

    TensorFlow decodes a file that holds the first chunk of pixels alone, and the alpha that belongs to it. Where pixels
    are damaged, libwebp's plain decoder, which TensorFlow calls, would read on in whatever follows them; its decoder of
    animations, which Pillow calls, stops at their end.
    """
    chunks = content.part(facts.data, facts.data_end)
    lossy = content.same(facts.data, b"VP8 ")
    chunks = tf.cond(lossy & (facts.at >= 0), lambda: _with_alpha(content, facts.at, chunks), lambda: chunks)
    length = tf.cast(4 + tf.strings.length(chunks), tf.int64)
    size = text_of(tf.bitwise.right_shift(length, tf.constant([0, 8, 16, 24], tf.int64)) & 255)
    still = tf.strings.join([b"RIFF", size, b"WEBP", chunks])
    decoded = tf.io.decode_image(still, channels=0, expand_animations=False)
    same_size = tf.reduce_all(tf.shape(decoded, tf.int64)[:2] == tf.stack([facts.height, facts.width]))
    with tf.control_dependencies([tf.debugging.Assert(same_size, ["two sizes"])]):
        decoded = tf.identity(decoded)
    return opaque(decoded)


def _with_alpha(content: Content, at: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    length = little(content.head(at + 4, 4))
    alpha = content.part(at, at + 8 + length + length % 2)
    canvas = content.part(tf.constant(24, tf.int64), tf.constant(30, tf.int64))
    return tf.strings.join([WEBP_WITH_ALPHA, canvas, alpha, pixels])

"""GIF pixels inside the graph: the first frame on its canvas, white where transparent or uncovered."""

import tensorflow as tf

from tf_detreg.images.color import WHITE
from tf_detreg.images.graph.binary import Content, little, text_of
from tf_detreg.images.graph.headers import Facts
from tf_detreg.images.graph.lzw import codes_are_defined

# A frame of one black pixel.
_LAST = b",\0\0\0\0\1\0\1\0\x80" + bytes(6) + b"\2\2\x44\1\0" + b";"


def decode_gif(content: Content, facts: Facts) -> tf.Tensor:
    """Return uint8 `(h, w, 3)`.

    TensorFlow decodes a file that holds the first frame alone, its transparent color made white, and one small frame
    behind it: a frame that is damaged ends the decoding, and then the small one is missing.
    """
    place = content.head(facts.at, 10)
    left, top, width, height = (little(place[i : i + 2]) for i in (1, 3, 5, 7))
    own = place[9] & 0x80 != 0
    flags = tf.where(own, place[9], content.byte(10))
    table = tf.where(own, facts.at + 10, 13)
    length = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags & 7)
    colors = content.part(table, table + length)
    clear = table + 3 * facts.key
    whitened = tf.strings.join(
        [content.part(table, clear), bytes([WHITE]) * 3, content.part(clear + 3, table + length)]
    )
    colors = tf.where(facts.key >= 0, whitened, colors)
    size = text_of(place[5:9])
    interlaced = text_of(((place[9] & 0x40) | 0x80 | (flags & 7))[None])
    frame = [b",\0\0\0\0", size, interlaced, colors, content.part(facts.data, facts.data_end)]
    frames = tf.io.decode_gif(tf.strings.join([b"GIF89a", size, b"\0\0\0", *frame, _LAST]))
    fine = (tf.shape(frames)[0] == 2) & codes_are_defined(content, facts.data, facts.data_end)
    with tf.control_dependencies([tf.debugging.Assert(fine, ["damaged"])]):
        picture = tf.identity(frames[0])
    around = [[top, facts.height - top - height], [left, facts.width - left - width], [0, 0]]
    return tf.pad(picture, around, constant_values=tf.constant(WHITE, tf.uint8))

"""The orientation that an image states, inside the graph: `tf_detreg.images.orientation` in TensorFlow operations."""

import tensorflow as tf

from tf_detreg.images.graph.binary import Content, big, little, same, text_of
from tf_detreg.images.graph.headers import Facts
from tf_detreg.images.orientation import INTEGER_BYTES, MIRRORED, MOST_UNPACKED, PREFIX, TAG, UPSIDE_DOWN

_SIZES = [INTEGER_BYTES.get(kind, 0) for kind in range(16)]
_DIGITS = [int(chr(i), 16) if chr(i) in "0123456789abcdefABCDEF" else -1 for i in range(256)]


def orientation_of(content: Content, facts: Facts) -> tf.Tensor:
    """Return the orientation, 1..8, of a file whose header is known."""

    def profile() -> tf.Tensor:
        text = content.part(facts.profile + facts.packed, facts.profile_end)  # one byte says how it is packed
        text = tf.cond(facts.packed > 0, lambda: tf.io.decode_compressed(text, "ZLIB"), lambda: text)
        short = tf.strings.length(text) <= MOST_UNPACKED
        with tf.control_dependencies([tf.debugging.Assert(short, ["its profile unpacks to too many bytes"])]):
            return of_exif(_unwritten(tf.identity(text)))

    def exif() -> tf.Tensor:
        return of_exif(content.part(facts.exif, facts.exif_end))

    one = lambda: tf.constant(1, tf.int64)  # noqa: E731
    return tf.cond(facts.exif >= 0, exif, lambda: tf.cond(facts.profile >= 0, profile, one))


def of_exif(text: tf.Tensor) -> tf.Tensor:
    """Return the orientation that an EXIF block states, given as a scalar string."""
    for _ in range(2):
        prefixed = tf.strings.substr(text, 0, tf.minimum(len(PREFIX), tf.strings.length(text))) == PREFIX
        text = tf.cond(prefixed, lambda t=text: tf.strings.substr(t, len(PREFIX), -1), lambda t=text: t)
    block = Content(text)
    head = block.head(0, 8)
    is_little = same(head, b"II*\0")
    known = is_little | same(head, b"MM\0*")

    def number(bytes_: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little, little(bytes_), big(bytes_))

    start = number(head[4:])
    count = number(block.head(start, 2))
    # Entries that lie whole inside the block.
    count = tf.minimum(count, tf.maximum((block.end - start - 2) // 12, 0))
    entries = start + 2 + 12 * tf.range(count)
    low = tf.cast(tf.where(is_little, 0, 1), tf.int64)
    bytes_ = tf.cast(block.bytes, tf.int64)
    tags = tf.gather(bytes_, entries + low) + 256 * tf.gather(bytes_, entries + 1 - low)
    found = tf.where(tags == TAG)[:1, 0]

    def value() -> tf.Tensor:
        entry = block.head(tf.gather(entries, found[0]), 12)
        kind, items = number(entry[2:4]), number(entry[4:8])
        size = tf.gather(tf.constant(_SIZES, tf.int64), tf.minimum(kind, len(_SIZES) - 1))
        by_size = tf.stack([0, entry[8], number(entry[8:10]), 0, number(entry[8:12])])
        inline = (size * items >= 1) & (size * items <= 4)
        return tf.where(inline, tf.gather(by_size, size), 1)

    stated = tf.cond(known & (tf.size(found) > 0), value, lambda: tf.constant(1, tf.int64))
    return tf.where((stated >= 1) & (stated <= 8), stated, 1)


def _unwritten(text: tf.Tensor) -> tf.Tensor:
    """Return bytes from hexadecimal digits, behind three lines of other text."""
    letters = tf.cast(tf.io.decode_raw(tf.strings.join([text, "\n"]), tf.uint8), tf.int32)
    lines = tf.concat([tf.where(letters == 10)[:, 0], tf.fill((3,), tf.size(letters, tf.int64))], axis=0)
    digits = tf.gather(tf.constant(_DIGITS), letters[lines[2] :])
    digits = tf.boolean_mask(digits, digits >= 0)
    pairs = tf.reshape(digits[: tf.size(digits) // 2 * 2], (-1, 2))
    return text_of(pairs[:, 0] * 16 + pairs[:, 1])


def upright(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return an image `(h, w, 3)` as it is shown."""
    picture = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
    for orientations, axis in ((MIRRORED, 1), (UPSIDE_DOWN, 0)):
        there = tf.reduce_any(orientation == tf.constant(orientations, tf.int64))
        picture = tf.cond(there, lambda p=picture, axis=axis: tf.reverse(p, [axis]), lambda p=picture: p)
    return picture

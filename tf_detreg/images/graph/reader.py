"""Encoded images to pixels inside the graph, to the last bit as `images.decode` decodes them for evaluation.

The evaluation path reads files with Pillow: upright, on white, cut in the center, a JPEG at a half, a quarter or an
eighth of its size where that is enough, then Pillow's antialiased bilinear resize in integers. A served image goes
through the same steps in TensorFlow's ops, so that both give the same pixels and hence the same embedding.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from tf_detreg.images.formats import MAX_PIXELS, MAX_SIDE
from tf_detreg.images.graph.binary import Content
from tf_detreg.images.graph.bmp import decode_bmp
from tf_detreg.images.graph.gif import decode_gif
from tf_detreg.images.graph.headers import Facts, facts_of, format_of
from tf_detreg.images.graph.orientation import orientation_of, upright
from tf_detreg.images.graph.png import decode_png
from tf_detreg.images.graph.resize import resize
from tf_detreg.images.graph.webp import decode_webp


def decode_batch(
    contents: tf.Tensor, image_size: tuple[int, int], max_pixels: int = MAX_PIXELS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a batch; one broken image costs its own row alone.

    An op that fails ends a whole TensorFlow call, so the rows go through a small `tf.data` pipeline inside the graph,
    which drops those that raise and decodes the others in parallel.

    Args:
        contents: Strings `(B,)`: JPEG, PNG, WebP, GIF (first frame) or BMP.
        image_size: (height, width) of the result.
        max_pixels: Most pixels an image may declare. Default 64 million.

    Returns:
        float32 `(B, H, W, 3)`, 0..255, zero where not valid, and bool `(B,)`.

    Example:
        >>> png = tf.io.encode_png(tf.zeros((9, 7, 3), tf.uint8))
        >>> images, valid = decode_batch(tf.stack([png, "no image"]), (4, 4))
        >>> images.shape, valid.numpy().tolist()
        (TensorShape([2, 4, 4, 3]), [True, False])
    """
    decoder = _decoder(tuple(image_size), max_pixels)
    count = tf.shape(contents, out_type=tf.int64)[0]
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    rows = rows.map(
        lambda row, content: (row, decoder(content)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    # A row that no image has ends the pipeline, so that it is never empty.
    last = tf.data.Dataset.from_tensors((count, tf.zeros((*image_size, 3), tf.uint8)))
    found, images = rows.ignore_errors().concatenate(last).batch(count + 1).get_single_element()
    shape = tf.stack([count + 1, *image_size, 3])
    images = tf.scatter_nd(found[:, None], tf.cast(images, tf.float32), tf.cast(shape, tf.int64))
    valid = tf.scatter_nd(found[:, None], tf.ones_like(found, tf.int32), tf.stack([count + 1]))
    images = tf.ensure_shape(images[:-1], (None, *image_size, 3))
    return images, valid[:-1] > 0


@functools.cache
def _decoder(image_size: tuple[int, int], max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `decode` as a function that is traced once a process, which takes seconds, and called by every graph."""
    result: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda content: decode(content, image_size, max_pixels), input_signature=[tf.TensorSpec((), tf.string)]
    )
    return result


def decode(content: tf.Tensor, image_size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Return one encoded image as uint8 `(H, W, 3)`; raise inside the graph when it is none, or is too large."""
    whole = Content(content)
    form = format_of(whole)
    facts = facts_of(whole, form)
    sides = tf.maximum(facts.height, facts.width) <= MAX_SIDE
    pixels = facts.height * facts.width
    fine = (facts.fine > 0) & (facts.height > 0) & (facts.width > 0) & sides & (pixels <= max_pixels)
    with tf.control_dependencies([tf.debugging.Assert(fine, ["no image that is read here, or too large"])]):
        content = tf.identity(content)
    orientation = orientation_of(whole, facts)
    size = tf.stack([facts.height, facts.width])
    seen = tf.cast(tf.where(orientation >= 5, tf.reverse(size, [0]), size), tf.float64)
    box = center_box(seen, image_size)
    picture = upright(_pixels(content, form, facts, box, image_size), orientation)
    scale = tf.cast(tf.shape(picture)[:2], tf.float64) / seen
    return resize(picture, box * scale, image_size)


def center_box(seen: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """Return [[top, left], [bottom, right]] of the largest centered part with the proportions of `target`.

    Args:
        seen: float64 [height, width], whole numbers.
        target: (height, width).
    """
    wanted = tf.constant(target, tf.float64)
    part = tf.minimum(seen, seen[::-1] * wanted / wanted[::-1])
    return tf.stack([(seen - part) / 2, (seen + part) / 2])


def _pixels(text: tf.Tensor, form: tf.Tensor, facts: Facts, box: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return uint8 `(h, w, 3)`, on white where transparent; a JPEG perhaps at 1/2, 1/4 or 1/8 of its size."""
    content = Content(text)
    size = tf.stack([facts.height, facts.width])

    def jpeg() -> tf.Tensor:
        enough = tf.reduce_max((box[1] - box[0]) / tf.constant(target, tf.float64))
        draft = tf.maximum(tf.cast(tf.cast(size, tf.float64) / enough, tf.int64), 1)
        ratio = tf.reduce_min(size // draft)
        step = tf.reduce_sum(tf.cast(ratio >= tf.constant([2, 4, 8], tf.int64), tf.int32))
        return tf.switch_case(step, [lambda r=r: _jpeg(text, r) for r in (1, 2, 4, 8)])

    kinds = [
        jpeg,
        lambda: decode_png(content, facts.key),
        lambda: decode_webp(content, facts),
        lambda: decode_gif(content, facts),
        lambda: decode_bmp(content, facts.height, facts.width),
    ]
    return tf.ensure_shape(tf.switch_case(form, kinds), (None, None, 3))


def _jpeg(text: tf.Tensor, ratio: int) -> tf.Tensor:
    return tf.io.decode_jpeg(text, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

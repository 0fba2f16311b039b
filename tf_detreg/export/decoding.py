"""Encoded images to pixels inside the graph, to the last bit as `datasets` decodes them for evaluation.

The evaluation path reads files with Pillow: upright, on white, cut in the centre, a JPEG at a half, a quarter or an
eighth of its size where that is enough, then Pillow's antialiased bilinear resize in integers. A served image goes
through the same steps in TensorFlow's ops, so that both give the same pixels and hence the same embedding.
"""

import tensorflow as tf

from tf_detreg.export.headers import Header

_BITS = 22  # Pillow's fixed-point precision for 8-bit resizing


def decode_batch(
    contents: tf.Tensor, image_size: tuple[int, int], max_pixels: int = 64_000_000
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
    count = tf.shape(contents, out_type=tf.int64)[0]
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    rows = rows.map(
        lambda row, content: (row, decode(content, image_size, max_pixels)),
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


def decode(content: tf.Tensor, image_size: tuple[int, int], max_pixels: int = 64_000_000) -> tf.Tensor:
    """One encoded image to uint8 `(H, W, 3)`; raises inside the graph when it is none, or is too large."""
    header = Header(content)
    size = header.size()
    pixels = size[0] * size[1]
    fine = (pixels > 0) & (pixels <= max_pixels) & (tf.reduce_max(size) < 2**24) & ~header.animated_webp()
    # What must not reach a decoder becomes an empty string, which every decoder refuses.
    content = tf.where(fine, content, "")
    orientation = header.orientation()
    seen = tf.cast(tf.where(orientation >= 5, tf.reverse(size, [0]), size), tf.float64)
    box = _centre_box(seen, image_size)
    picture = _upright(_pixels(content, header, size, box, image_size), orientation)
    scale = tf.cast(tf.shape(picture)[:2], tf.float64) / seen
    return _resize(picture, box * scale, image_size)


def _centre_box(seen: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """[[top, left], [bottom, right]] of the largest centred part with the proportions of `target`."""
    wanted = tf.constant(target, tf.float64)
    part = wanted * tf.reduce_min(seen / wanted)
    return tf.stack([(seen - part) / 2, (seen + part) / 2])


def _pixels(content, header: Header, size, box, target) -> tf.Tensor:
    """uint8 `(h, w, 3)`, on white where transparent; a JPEG perhaps at 1/2, 1/4 or 1/8 of its size."""

    def jpeg():
        enough = tf.reduce_max((box[1] - box[0]) / tf.constant(target, tf.float64))
        draft = tf.maximum(tf.cast(tf.cast(size, tf.float64) / enough, tf.int64), 1)
        ratio = tf.reduce_min(size // draft)
        step = tf.reduce_sum(tf.cast(ratio >= tf.constant([2, 4, 8], tf.int64), tf.int32))
        return tf.switch_case(step, [lambda r=r: _jpeg(content, r) for r in (1, 2, 4, 8)])

    def png():
        # libpng expands grey of less than 8 bits on the way to three channels only.
        kinds = [lambda: _on_white(tf.io.decode_png(content, 4)), lambda: tf.io.decode_png(content, 3)]
        kinds.append(lambda: _grey16(content))
        depth = header.grey_depth()
        return tf.switch_case(tf.where(depth == 16, 2, tf.where((depth > 0) & (depth < 8), 1, 0)), kinds)

    def other():
        return tf.io.decode_image(content, channels=3, expand_animations=False)

    def webp():
        decoded = tf.io.decode_image(content, channels=0, expand_animations=False)
        return tf.cond(tf.shape(decoded)[-1] == 4, lambda: _on_white(decoded), lambda: decoded)

    picture = tf.switch_case(header.format(), [jpeg, png, webp, other, other, other])
    return tf.ensure_shape(picture, (None, None, 3))


def _jpeg(content: tf.Tensor, ratio: int) -> tf.Tensor:
    return tf.io.decode_jpeg(content, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def _grey16(content: tf.Tensor) -> tf.Tensor:
    values = tf.cast(tf.io.decode_png(content, 1, dtype=tf.uint16), tf.float32)
    # Some files hold 8-bit values in 16 bits.
    values = tf.where(tf.reduce_max(values) > 255, tf.round(values / 257), values)
    return tf.repeat(tf.cast(values, tf.uint8), 3, axis=-1)


def _on_white(rgba: tf.Tensor) -> tf.Tensor:
    """Pillow's `alpha_composite` on an opaque white ground, with its integer rounding."""
    values = tf.cast(tf.ensure_shape(rgba, (None, None, 4)), tf.int32)
    colour, alpha = values[..., :3], values[..., 3:]
    shift = tf.bitwise.right_shift
    mixed = (colour * alpha + 255 * (255 - alpha)) * 128 + (128 << 7)
    return tf.cast(shift(shift(shift(mixed, 8) + mixed, 8), 7), tf.uint8)


def _upright(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    picture = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
    mirrored = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
    upside_down = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
    picture = tf.cond(mirrored, lambda: tf.reverse(picture, [1]), lambda: picture)
    return tf.cond(upside_down, lambda: tf.reverse(picture, [0]), lambda: picture)


def _resize(picture: tf.Tensor, box: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """Pillow's bilinear resize of `box`, rounded to 8 bits after each of its two passes."""

    def rows(image):
        return _shrink(image, box[0, 0], box[1, 0], target[0])

    def columns(image):
        turned = _shrink(tf.transpose(image, (1, 0, 2)), box[0, 1], box[1, 1], target[1])
        return tf.transpose(turned, (1, 0, 2))

    # Pillow does the height first where that drops much more, which shows in the rounding.
    height, width = tf.shape(picture)[0], tf.shape(picture)[1]
    tall = (height > target[0]) & (height - target[0] > 2 * (width - target[1]))
    resized = tf.cond(tall, lambda: columns(rows(picture)), lambda: rows(columns(picture)))
    return tf.ensure_shape(resized, (*target, 3))


def _shrink(picture: tf.Tensor, low: tf.Tensor, high: tf.Tensor, count: int) -> tf.Tensor:
    """Resamples the first axis from [low, high) to `count` rows with a triangle filter."""
    size = tf.shape(picture)[0]
    # Pillow takes its box as 32-bit floats.
    low, high = tf.cast(low, tf.float32), tf.minimum(tf.cast(high, tf.float32), tf.cast(size, tf.float32))
    scale = tf.cast(high - low, tf.float64) / count
    low = tf.cast(low, tf.float64)
    support = tf.maximum(scale, 1.0)
    centre = low + (tf.range(count, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
    behind = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), size)
    taps = tf.cast(tf.math.ceil(support), tf.int32) * 2 + 1
    positions = first[:, None] + tf.range(taps)
    distance = (tf.cast(positions, tf.float64) - centre[:, None] + 0.5) / support
    weights = tf.where(positions < behind[:, None], tf.maximum(1.0 - tf.abs(distance), 0.0), 0.0)
    weights = weights / tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.cast(weights * (1 << _BITS) + 0.5, tf.int32)
    positions = tf.minimum(positions, size - 1)

    def add(tap, total):
        rows = tf.cast(tf.gather(picture, positions[:, tap]), tf.int32)
        return tap + 1, total + rows * weights[:, tap, None, None]

    start = tf.fill((count, tf.shape(picture)[1], 3), 1 << (_BITS - 1))
    _, total = tf.while_loop(lambda tap, _: tap < taps, add, (tf.constant(0), start), parallel_iterations=1)
    return tf.cast(tf.clip_by_value(tf.bitwise.right_shift(total, _BITS), 0, 255), tf.uint8)

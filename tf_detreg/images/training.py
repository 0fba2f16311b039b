"""JPEG files to training pixels inside TensorFlow's graph, where no Python lock holds up the other cores.

Evaluation reads every picture with Pillow (`decode`), and an exported model repeats that to the bit. What trains need
not: here the wanted part is cut out while decoding, at 1/2, 1/4 or 1/8 of its size where that leaves enough, and is
then resized from at most two source pixels an output pixel, so that none is passed over. What is no plain JPEG, or
cannot be decoded, is left to `decode`, which alone decides what is unreadable.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_detreg.images import headers
from tf_detreg.images.formats import UnreadableImage, check_pixels
from tf_detreg.images.geometry import RandomCrop, part, shrinkage
from tf_detreg.images.orientation import MIRRORED, UPSIDE_DOWN
from tf_detreg.images.threads import each

_RATIOS = (1, 2, 4, 8)  # by which a JPEG can be made smaller while it is decoded
_MIXED = len(_RATIOS)
_UNKNOWN, _NOT_PLAIN = 0, 9  # in place of an orientation
_LARGEST = 1 << 28  # bytes; what is larger is read only when its turn comes


class Windows(NamedTuple):
    """What to decode of some files.

    Args:
        paths: File names as bytes, objects (B,); empty where a file is no plain JPEG.
        windows: int32 (B, 6): top, left, height and width of the part as the file stores it, already made smaller; how
            often it is halved; the EXIF orientation.
        way: int32, how often all of them are halved if none has to be turned; else `_MIXED`.
    """

    paths: np.ndarray
    windows: np.ndarray
    way: np.ndarray


class JpegPlanner:
    """Looks into the headers of files, once each, and says which part of each to decode.

    Args:
        paths: File names.
        size: (height, width) of the result.
        crop: A random crop instead of the central one.
    """

    def __init__(self, paths: Sequence[str], size: tuple[int, int], crop: RandomCrop | None) -> None:
        self._paths, self._size, self._crop = paths, size, crop
        # Width, height and orientation; pages that no one has touched cost nothing.
        self._headers = np.zeros((len(paths), 3), np.uint16)

    def plan(self, indices: np.ndarray, draws: np.ndarray) -> Windows:
        """Return what to decode of the files at `indices` (B,); random crops lie where `draws` (B, 4) in [0, 1) say."""
        names = [self._paths[index] for index in indices]
        new = [row for row, index in enumerate(indices) if self._headers[index, 2] == _UNKNOWN]
        for row, header in zip(new, each(header_of, [names[row] for row in new]), strict=True):
            self._headers[indices[row]] = header or (0, 0, _NOT_PLAIN)
        headers = self._headers[indices]
        plain = headers[:, 2] != _NOT_PLAIN
        found = [self._window(*known) for known in zip(headers.tolist(), draws, strict=True)]
        windows = np.array(found, np.int32)
        paths = np.array([os.fsencode(name) if good else b"" for name, good in zip(names, plain, strict=True)], object)
        ways = np.unique(np.where(windows[:, 5] == 1, windows[:, 4], _MIXED)[plain]).astype(np.int32)
        return Windows(paths, windows, np.asarray(ways[0] if len(ways) == 1 else _MIXED, np.int32))

    def _window(self, header: list[int], draws: np.ndarray) -> tuple[int, ...]:
        width, height, orientation = header
        if orientation == _NOT_PLAIN:
            return 0, 0, 0, 0, 0, orientation
        turned, size = orientation >= 5, self._size
        seen = (height, width) if turned else (width, height)
        left, top, right, bottom = part(*seen, size, self._crop, draws)
        if orientation in MIRRORED:
            left, right = seen[0] - right, seen[0] - left
        if orientation in UPSIDE_DOWN:
            top, bottom = seen[1] - bottom, seen[1] - top
        if turned:
            left, top, right, bottom = top, left, bottom, right
            size = size[::-1]
        shrink = shrinkage((left, top, right, bottom), size)
        step = sum(shrink >= ratio for ratio in _RATIOS[1:])
        top, rows = _whole(top, bottom, height, step)
        left, columns = _whole(left, right, width, step)
        return top, left, rows, columns, step, orientation


def decode_windows(
    paths: tf.Tensor, windows: tf.Tensor, way: tf.Tensor, size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode what `JpegPlanner.plan` says, in parallel.

    Args:
        paths: Strings (B,).
        windows: int32 (B, 6).
        way: int32.
        size: (height, width) of the result.

    Returns:
        float32 (B, height, width, 3) in 0..255, and bool (B,): which rows hold an image; the others are zero.
    """
    return _graph(size)(paths, windows, way)


@functools.lru_cache(maxsize=16)
def _graph(size: tuple[int, int]) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return the graph for a size: to trace it takes longer than a small set's epoch, so it is done once."""
    specs = [tf.TensorSpec((None,), tf.string), tf.TensorSpec((None, 6), tf.int32), tf.TensorSpec((), tf.int32)]

    def decode(paths: tf.Tensor, windows: tf.Tensor, way: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _decode_windows(paths, windows, way, size)

    with tf.init_scope():  # not a part of the pipeline that asks first
        graph: Callable[..., tuple[tf.Tensor, tf.Tensor]] = tf.function(
            decode, input_signature=specs, autograph=False
        ).get_concrete_function()
    return graph


def _decode_windows(
    paths: tf.Tensor, windows: tf.Tensor, way: tf.Tensor, size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    # A ratio is written into the graph. To branch for each picture costs a tenth of the decoding, for a batch nothing.
    ways: list[Callable[..., tf.Tensor]] = [
        lambda content, window, ratio=ratio: _cut(content, window, ratio, size) for ratio in _RATIOS
    ]
    ways.append(lambda content, window: _cut_and_turn(content, window, size))
    found, images = tf.switch_case(way, [lambda cut=cut: _all(paths, windows, cut, size) for cut in ways])
    count = tf.shape(paths)[0]

    def spread() -> tuple[tf.Tensor, ...]:
        shape = tf.stack([count, *size, 3])
        return tf.scatter_nd(found[:, None], images, shape), tf.scatter_nd(found[:, None], tf.ones_like(found), [count])

    images, is_found = tf.cond(tf.size(found) == count, lambda: (images, tf.ones_like(found)), spread)
    return images, is_found > 0


def _all(paths: tf.Tensor, windows: tf.Tensor, cut: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the rows that can be decoded, int32 (M,), and their images, float32 (M, height, width, 3)."""
    count = tf.shape(paths)[0]
    # An empty name is not tried: TensorFlow would log an error for each.
    named = tf.where(tf.strings.length(paths) > 0)[:, 0]
    rows = tf.data.Dataset.from_tensor_slices(
        (tf.cast(named, tf.int32), tf.gather(paths, named), tf.gather(windows, named))
    )
    rows = rows.map(
        lambda row, path, window: (row, cut(tf.io.read_file(path), window)), num_parallel_calls=os.cpu_count() or 1
    )
    # A row that no image has stands at the end, so that the pipeline is never empty.
    last = tf.data.Dataset.from_tensors((count, tf.zeros((*size, 3))))
    found, images = rows.ignore_errors().concatenate(last).batch(tf.cast(count + 1, tf.int64)).get_single_element()
    return found[:-1], images[:-1]


def _cut(content: tf.Tensor, window: tf.Tensor, ratio: int, size: tf.Tensor) -> tf.Tensor:
    picture = tf.io.decode_and_crop_jpeg(content, window[:4], 3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    return tf.raw_ops.ResizeBilinear(images=picture[None], size=size, half_pixel_centers=True)[0]


def _cut_and_turn(content: tf.Tensor, window: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    orientation = window[5]
    stored = tf.where(orientation >= 5, size[::-1], size)
    picture = tf.switch_case(window[4], [lambda ratio=ratio: _cut(content, window, ratio, stored) for ratio in _RATIOS])
    picture = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
    for orientations, axis in ((MIRRORED, 1), (UPSIDE_DOWN, 0)):
        there = tf.reduce_any(orientation == tf.constant(orientations))
        picture = tf.cond(there, lambda p=picture, axis=axis: tf.reverse(p, [axis]), lambda p=picture: p)
    return tf.ensure_shape(picture, (*size, 3))


def _whole(low: float, high: float, full: int, step: int) -> tuple[int, int]:
    """Start and number of whole pixels, at least one, of a picture that was halved `step` times."""
    ratio = _RATIOS[step]
    full = -(-full // ratio)
    start = min(round(low / ratio), full - 1)
    return start, max(1, min(round(high / ratio), full) - start)


def header_of(path: str) -> tuple[int, int, int] | None:
    """Return (width, height, orientation) of a JPEG of 8 bits in gray or three colors; None of any other file.

    Also None of one that is damaged as far as its segments show, of a baseline one in more than one scan, and of one
    that declares too many pixels.
    """
    try:
        with open(path, "rb") as file:
            if file.read(3) != b"\xff\xd8\xff" or os.path.getsize(path) > _LARGEST:
                return None
            file.seek(0)
            content = file.read()
        found = headers.jpeg(content)
        check_pixels(found.width, found.height)
        # A part that is cut out of a baseline file is decoded without a look at what stands behind it.
        plain = headers.scans(content, found.pixels) == 1 or found.progressive
        return (found.width, found.height, found.orientation) if plain and found.components in (1, 3) else None
    except (OSError, UnreadableImage):
        return None

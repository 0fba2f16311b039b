"""`tf.data` pipelines over an `ImageSet`: P × K training batches, and every image once in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf

from tf_detreg.datasets.augment import augmenter
from tf_detreg.datasets.read_files import SkipLog, decode_batch
from tf_detreg.datasets.sampler import ClassSampler, ShuffledSampler, sampler
from tf_detreg.images.arrays import is_gray_view
from tf_detreg.images.geometry import DRAWS, RandomCrop, Size, height_width
from tf_detreg.images.training import JpegPlanner, decode_windows

if TYPE_CHECKING:
    from tf_detreg.datasets.image_set import ImageSet


def training_batches(
    image_set: ImageSet,
    classes: int = 32,
    images: int = 4,
    *,
    seed: int = 0,
    augment: Callable[..., Any] | None = None,
    image_size: Size | None = None,
    crop: RandomCrop | None = None,
    first_epoch: int = 0,
    max_unreadable: float = 0.05,
) -> tf.data.Dataset:
    """Return batches of P classes × K images; one iteration of the dataset is one epoch.

    The first iteration that is read to its last batch is epoch `first_epoch`, the next one the epoch after; one that is
    abandoned before (Keras peeks at a first batch) does not count. What an epoch holds follows from `seed` and its
    number alone, augmentation included, so a run that resumes with `first_epoch=e` sees what the unbroken run saw.

    An unreadable file is left out: another good image of its batch, of its own class if there is one, takes its place.

    Args:
        image_set: What to draw from.
        classes: P; lowered, with a warning, to the number of classes there are. 0: batches of `images` images in a
            random order, whatever their classes.
        images: K.
        seed: Of everything random.
        augment: A Keras preprocessing layer, a `keras.Sequential` of them, or a function of (images, seed (2,) int32).
        image_size: Side or (height, width) if not the set's own.
        crop: A random crop at decoding time, for sets of files.
        first_epoch: Number of the first epoch.
        max_unreadable: Share of the set's files above which unreadable ones stop the run.

    Returns:
        A dataset of (images float32 (P·K, H, W, 3) in 0..255, labels int32 (P·K,)).
    """
    if crop is not None and image_set.paths is None:
        raise ValueError(
            "`crop` cuts while decoding files; for images in memory use `augment=keras.layers.RandomCrop`."
        )
    if image_set.paths is None:
        source: RowSource = _MemoryPixels(image_set, image_size)
    else:
        source = _TrainingFiles(image_set, image_size, crop, max_unreadable)
    drawn = sampler(image_set.labels, classes, images, seed)
    return epoch_batches(drawn, source, augmenter(augment), first_epoch)


def epoch_batches(
    sampler: ClassSampler | ShuffledSampler, source: RowSource, transform: Callable[..., Any], first_epoch: int
) -> tf.data.Dataset:
    """Return what `training_batches` describes, for rows of any kind.

    Args:
        sampler: Which rows.
        source: Where the rows come from.
        transform: (rows float32, seed) → rows.
        first_epoch: Number of the first epoch.
    """
    counter = _EpochCounter(first_epoch, sampler.steps)

    def plan() -> Iterator[tuple[np.ndarray, np.ndarray, np.int64]]:
        for step, batch in enumerate(sampler.epoch(counter.epoch)):
            yield batch.indices, batch.seed, np.int64(step)

    def load(indices: tf.Tensor, batch_seed: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows, labels, kept = source.load(indices, batch_seed)
        if source.may_fail:
            rows, labels = _replace_missing(rows, labels, kept)
        return transform(tf.cast(rows, tf.float32), batch_seed), labels, step

    def arrive(rows: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([tf.numpy_function(lambda s: _arrived(s, counter, source), [step], tf.int64)]):
            return tf.identity(rows), labels

    size = sampler.batch_size
    dataset = tf.data.Dataset.from_generator(
        plan,
        output_signature=(
            tf.TensorSpec((size,), tf.int64),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((), tf.int64),
        ),
    )
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    # The last map runs in the reader's own thread, behind the prefetch: an epoch counts when it was read, not planned.
    dataset = dataset.prefetch(tf.data.AUTOTUNE).map(arrive)
    return dataset.apply(tf.data.experimental.assert_cardinality(sampler.steps))


def ordered_batches(
    image_set: ImageSet, batch_size: int = 128, *, image_size: Size | None = None, what: str = "labels"
) -> tf.data.Dataset:
    """Return every image once in index order: (images float32, labels int32) or (images, indices int64).

    Unreadable files are left out, counted and named in the log: pair the rows with what comes beside them.
    """
    kind = _MemoryPixels if image_set.paths is None else _Files
    return ordered_rows(len(image_set), kind(image_set, image_size), batch_size, what)


def ordered_rows(count: int, source: RowSource, batch_size: int, what: str) -> tf.data.Dataset:
    """Return what `ordered_batches` describes, for rows of any kind."""
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; received {batch_size}.")

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows, labels, kept = source.load(indices, tf.zeros((2,), tf.int32))
        beside = labels if what == "labels" else indices
        if source.may_fail:
            rows, beside = tf.boolean_mask(rows, kept), tf.boolean_mask(beside, kept)
        return tf.cast(rows, tf.float32), beside, indices[-1]

    def arrive(rows: tf.Tensor, beside: tf.Tensor, latest: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        finish = tf.numpy_function(lambda at: _finish_at(at, count, source), [latest], tf.int64)
        with tf.control_dependencies([finish]):
            return tf.identity(rows), beside

    dataset = tf.data.Dataset.range(count).batch(batch_size)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    return dataset.map(arrive if source.may_fail else lambda rows, beside, latest: (rows, beside))


class _EpochCounter:
    def __init__(self, first: int, steps: int) -> None:
        self.epoch, self._steps = int(first), steps
        self._lock = threading.Lock()

    def arrived(self, step: int) -> bool:
        """Note that a reader got batch `step`; true at the end of the epoch."""
        with self._lock:
            last = step == self._steps - 1
            self.epoch += last
            return last


def _arrived(step: np.int64, counter: _EpochCounter, source: RowSource) -> np.int64:
    if counter.arrived(int(step)):
        source.finish_epoch()
    return np.int64(0)


def _finish_at(latest: np.int64, count: int, source: RowSource) -> np.int64:
    if latest == count - 1:
        source.finish_epoch()
    return np.int64(0)


class RowSource(Protocol):
    """Where batches take their rows from."""

    may_fail: bool

    def load(self, indices: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return rows (B, …), labels int32 (B,) and which could be read (B,), of tensors of indices (B,) and a seed."""

    def finish_epoch(self) -> None:
        """Note that a reader got the last batch of an epoch."""


class _MemoryPixels:
    """Pixels of one size from an array."""

    may_fail = False

    def __init__(self, image_set: ImageSet, image_size: Size | None) -> None:
        self._set, self._gray = image_set, is_gray_view(image_set.pixels)
        self._size = height_width(image_set.size if image_size is None else image_size)

    def finish_epoch(self) -> None:
        """Do nothing: what lies in memory can be read."""

    def load(self, indices: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows, labels = tf.numpy_function(self._gather, [indices], (tf.uint8, tf.int32))
        size = self._set.pixels.shape[1:3]
        rows.set_shape((*indices.shape, *size, 1 if self._gray else 3))
        labels.set_shape(indices.shape)
        if size != self._size:
            rows = tf.clip_by_value(tf.image.resize(rows, self._size, antialias=True), 0.0, 255.0)
        return tf.repeat(rows, 3, axis=-1) if self._gray else rows, labels, tf.ones_like(indices, tf.bool)

    def _gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self._set.pixels[..., :1] if self._gray else self._set.pixels
        return np.ascontiguousarray(images[indices]), self._set.labels[indices]


class _Files:
    """Pixels of one size from files, to the bit as an exported model reads them."""

    may_fail = True

    def __init__(self, image_set: ImageSet, image_size: Size | None, max_unreadable: float = 1.0) -> None:
        self._set = image_set
        self._size = height_width(image_set.size if image_size is None else image_size)
        self.skips = SkipLog(len(image_set), max_unreadable, image_set.name)

    def finish_epoch(self) -> None:
        self.skips.report()

    def load(self, indices: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows, labels, kept = tf.numpy_function(self._read, [indices], (tf.uint8, tf.int32, tf.bool))
        rows.set_shape((*indices.shape, *self._size, 3))
        labels.set_shape(indices.shape)
        kept.set_shape(indices.shape)
        return rows, labels, kept

    def _read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, kept = decode_batch(self._set.files, indices, self._size, self.skips)
        return rows, self._set.labels[indices], kept


class _TrainingFiles(_Files):
    """Pixels of one size from files, perhaps randomly cropped, as fast as can be."""

    def __init__(
        self, image_set: ImageSet, image_size: Size | None, crop: RandomCrop | None, max_unreadable: float
    ) -> None:
        super().__init__(image_set, image_size, max_unreadable)
        self._crop = crop
        self._planner = JpegPlanner(image_set.files, self._size, crop)

    def load(self, indices: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        types = (tf.float64, tf.int32, tf.string, tf.int32, tf.int32)
        planned = tf.numpy_function(self._plan, [indices, seed], types)
        for tensor, more in zip(planned, ((DRAWS,), (), (), (6,)), strict=False):
            tensor.set_shape((*indices.shape, *more))
        draws, labels, paths, windows, way = planned
        rows, kept = decode_windows(paths, windows, way, self._size)
        rows, kept = tf.cond(
            tf.reduce_all(kept), lambda: (rows, kept), lambda: self._add_others(rows, kept, indices, draws)
        )
        rows.set_shape((*indices.shape, *self._size, 3))
        kept.set_shape(indices.shape)
        return rows, labels, kept

    def _plan(self, indices: np.ndarray, seed: np.ndarray) -> tuple[np.ndarray, ...]:
        draws = np.random.default_rng(seed).random((len(indices), DRAWS))
        return draws, self._set.labels[indices], *self._planner.plan(indices, draws)

    def _add_others(
        self, rows: tf.Tensor, kept: tf.Tensor, indices: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what is no plain JPEG is read by Pillow, which also says what is wrong with a file."""
        missing = tf.boolean_mask(indices, ~kept), tf.boolean_mask(draws, ~kept)
        others, read = tf.numpy_function(self._read_others, missing, (tf.uint8, tf.bool))
        places = tf.where(~kept)
        rows = tf.tensor_scatter_nd_update(rows, places, tf.cast(others, tf.float32))
        return rows, tf.tensor_scatter_nd_update(kept, places, read)

    def _read_others(self, indices: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return decode_batch(self._set.files, indices, self._size, self.skips, self._crop, draws)


def _replace_missing(rows: tf.Tensor, labels: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Put a readable row, of the same class if there is one, where an image could not be read."""

    def repair() -> tuple[tf.Tensor, tf.Tensor]:
        same = tf.cast(labels[:, None] == labels[None, :], tf.int32)
        donor = tf.argmax(tf.where(kept[None, :], 1 + same, 0), axis=1, output_type=tf.int32)
        source = tf.where(kept, tf.range(tf.shape(labels)[0]), donor)
        return tf.gather(rows, source), tf.gather(labels, source)

    some = tf.debugging.Assert(tf.reduce_any(kept), ["Not one image of a batch could be read; the log names them."])
    with tf.control_dependencies([some]):
        kept = tf.identity(kept)
    result: tuple[tf.Tensor, tf.Tensor] = tf.cond(tf.reduce_all(kept), lambda: (rows, labels), repair)
    return result

"""A frozen backbone's features, computed once and kept on disk, so that heads train on them in seconds."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks, deprecated, manifests
from tf_detreg.datasets.cache import cache_folder
from tf_detreg.datasets.image_set import ImageSet
from tf_detreg.files import check_file, write_json
from tf_detreg.progress import ticker
from tf_detreg.workspaces import alone_in

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

logger = logging.getLogger(__name__)

FORMAT = 1
_PIECE = 1 << 24
_SECONDS_BETWEEN_NOTES = 5.0


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features in the place of images: draws batches, orders and selects as `ImageSet` does.

    Args:
        features: float32 (M, F), usually a memory map.
        rows: int64 (N,), which rows of `features` belong to the set.
        labels: int32 (N,).
        class_names: C names.
        groups: int32 (N,) or None.
        name: What reports call the set. Default "features".
    """

    features: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    groups: np.ndarray | None = None
    name: str = "features"

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"FeatureSet({self.name!r}, {len(self)} × {self.dim} of {self.num_classes} classes)"

    @property
    def dim(self) -> int:
        result: int = self.features.shape[1]
        return result

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def batches(self, classes: int = 32, images: int = 4, seed: int = 0, *, first_epoch: int = 0) -> tf.data.Dataset:
        """Return (features float32 (P·K, F), labels int32) with the same order as `ImageSet.batches`."""
        from tf_detreg.datasets.batches import epoch_batches
        from tf_detreg.datasets.sampler import sampler

        return epoch_batches(
            sampler(self.labels, classes, images, seed), _Rows(self), lambda rows, seed: rows, first_epoch
        )

    def ordered(self, batch_size: int = 128) -> tf.data.Dataset:
        """Return (features, labels) in order, every row once."""
        from tf_detreg.datasets.batches import ordered_rows

        return ordered_rows(len(self), _Rows(self), batch_size, "labels")

    def indexed(self, batch_size: int = 128) -> tf.data.Dataset:
        """Return (features, index in the set) in order, every row once."""
        from tf_detreg.datasets.batches import ordered_rows

        return ordered_rows(len(self), _Rows(self), batch_size, "indices")

    def subset(self, indices: ArrayLike) -> FeatureSet:
        """Return the rows at `indices` (integers or a mask), with the same classes and labels; nothing is copied."""
        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, rows=self.rows[indices], labels=self.labels[indices], groups=groups)

    def select_classes(self, ids: Sequence[int], name: str | None = None) -> FeatureSet:
        """Return the rows of the classes `ids`, relabeled 0..len(ids)-1 in the order of `ids`; nothing is copied."""
        new_label = np.full(self.num_classes, -1, np.int32)
        new_label[ids] = np.arange(len(ids), dtype=np.int32)
        kept = self.subset(new_label[self.labels] >= 0)
        names = tuple(self.class_names[i] for i in ids)
        return replace(kept, labels=new_label[kept.labels], class_names=names, name=name or self.name)


class _Rows:
    may_fail = False

    def __init__(self, feature_set: FeatureSet) -> None:
        self._set = feature_set

    def finish_epoch(self) -> None:
        """Do nothing: features that were computed can be read."""

    def load(self, indices: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        rows, labels = tf.numpy_function(self._gather, [indices], (tf.float32, tf.int32))
        rows.set_shape((*indices.shape, self._set.dim))
        labels.set_shape(indices.shape)
        return rows, labels, tf.ones_like(indices, tf.bool)

    def _gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._set.features[self._set.rows[indices]], self._set.labels[indices]


@deprecated.renamed_arguments(folder="directory")
def cache_features(
    backbone: keras.Model,
    data: ImageSet | tuple[Any, ...],
    directory: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    max_unreadable: float = 0.05,
    progress: bool | None = None,
) -> FeatureSet | tuple[Any, ...]:
    """Compute features once and keep them.

    The file is found again by a fingerprint of the backbone (architecture and weights), of the images (their bytes, or
    their names, sizes and times of change) and of the size they are decoded at: whatever changes, other features are
    computed. An interrupted computation goes on where it stopped, and two processes never compute the same features at
    once. The space on disk is claimed before the first image is read, so that a full disk is an error at the start and
    never half a file. Checksums (CRC-32 of each part) are compared whenever features are opened, which reads them once,
    at about 1 GB/s from memory; from the first damaged part on they are computed again, with a warning.

    Args:
        backbone: Images → features (B, F); used in inference mode.
        data: An `ImageSet`, or `Splits` of them.
        directory: Where to keep the features; by default in the cache folder (`$TF_DETREG_CACHE`).
        batch_size: Images at a time. Default 64.
        max_unreadable: Share of a set's files above which unreadable ones are an error, as in training; of `Splits`,
            the train set's. Default 0.05.
        progress: False shows none. Default None, a bar in a terminal and lines in a log.

    Returns:
        A `FeatureSet` (or the same kind of tuple of them); images that could not be read are left out.

    Raises:
        ValueError: If the backbone's output is not (B, F), or too many files cannot be read.
        OSError: If they cannot be kept, with the reason and the folder.

    Example:
    >>> import tempfile, keras
    >>> from tf_detreg import datasets
    >>> flat = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    >>> datasets.cache_features(flat, datasets.digits().validation, tempfile.mkdtemp())
    FeatureSet('digits', 360 × 192 of 10 classes)
    """
    if isinstance(data, tuple):
        names = getattr(data, "_fields", ("train",) * len(data))
        shares = [max_unreadable if name == "train" else 1.0 for name in names]
        parts: list[Any] = [
            cache_features(backbone, part, directory, batch_size, share, progress)
            for part, share in zip(data, shares, strict=True)
        ]
        return type(data)(*parts)
    checks.within("max_unreadable", max_unreadable, 0, 1)
    shape = backbone.output_shape
    if len(shape) != 2 or shape[1] is None:
        raise ValueError(f"`backbone` must give features (B, F); received one that gives {shape}. Set its pooling.")
    place = pathlib.Path(directory or cache_folder() / "features") / _fingerprint(backbone, data)
    store = _Store(place, len(data), shape[1])
    if store.done < len(data) or not store.checked:
        store.make_folder()
        with alone_in(place):
            store = _Store(place, len(data), shape[1])  # as another process may have left it meanwhile
            _compute(backbone, data, store, batch_size, max_unreadable, progress)
    _check_unreadable(store, data, max_unreadable)
    rows = np.flatnonzero(store.written)
    return FeatureSet(
        features=store.open(),
        rows=rows,
        labels=data.labels[rows],
        class_names=data.class_names,
        groups=None if data.groups is None else data.groups[rows],
        name=data.name,
    )


def _check_unreadable(store: _Store, data: ImageSet, share: float) -> None:
    count = int((~store.written[: store.done]).sum())
    if count > share * len(data):
        raise ValueError(
            f"{count} of the {len(data)} images of {data.name} cannot be read, more than the stated share of "
            f"{share:.1%}; the log names them. Repair or remove them, or raise `max_unreadable`."
        )


def _compute(
    backbone: keras.Model, data: ImageSet, store: _Store, batch_size: int, share: float, progress: bool | None
) -> None:
    import tensorflow as tf

    from tf_detreg.inference import traced

    run = traced(backbone)
    store.claim()
    first = store.done
    if 0 < first < len(data):
        logger.info("Going on with the features of %s at image %d of %d.", data.name, first, len(data))
    noted = time.monotonic()
    with open(store.file, "r+b") as file, ticker(f"Features of {data.name}", len(data) - first, progress) as tick:
        rest = data.subset(np.arange(first, len(data))).indexed(batch_size) if first < len(data) else ()
        for images, indices in rest:
            tick(batch_size)
            rows = first + indices.numpy()
            if not len(rows):
                continue
            store.write(file, rows, tf.cast(run(images), tf.float32).numpy())
            # What was skipped so far is known before it is noted down.
            store.done = int(rows[-1]) + 1
            _check_unreadable(store, data, share)
            if time.monotonic() - noted > _SECONDS_BETWEEN_NOTES:
                store.note(file, int(rows[-1]) + 1)
                noted = time.monotonic()
        store.note(file, len(data))


class _Store:
    """`features.f32` (N × F, little-endian) and `progress.json`: how far it is filled, and checksums of its parts."""

    def __init__(self, folder: pathlib.Path, count: int, dim: int) -> None:
        self.folder, self.count, self.dim = folder, count, dim
        self.written: np.ndarray
        self.done: int
        self.file, self._progress = folder / "features.f32", folder / "progress.json"
        self._start_anew()
        try:
            notes = json.loads(self._progress.read_text("utf-8"))
            if self.file.stat().st_size == self._size and manifests.is_intact(notes):
                self.written[: notes["done"]] = True
                self.written[notes["skipped"]] = False
                self.done = notes["done"]
                self._check(notes.get("parts"))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            self._start_anew()

    def _start_anew(self) -> None:
        self.done, self.written = 0, np.zeros(self.count, bool)
        self._parts: list[tuple[int, int]] = []  # (rows up to here, CRC-32 of the part that ends here)

    @property
    def checked(self) -> bool:
        """Return whether there are checksums of all that is filled; version 0.1.0 wrote none."""
        result: bool = (self._parts[-1][0] if self._parts else 0) == self.done
        return result

    def _check(self, parts: list[Any] | None) -> None:
        """Keep what agrees with its checksum: all before the first damaged part."""
        if parts is None:  # of version 0.1.0: nobody can tell any more; `note` adds the checksums
            return
        start = 0
        for stop, known in parts:
            if not start < stop <= self.done or self._sum(start, stop) != known:
                break
            self._parts.append((stop, known))
            start = stop
        if start < self.done:
            logger.warning("%s is damaged from row %d on: those features are computed again.", self.file, start)
            self.done, self.written[start:] = start, False

    def _sum(self, start: int, stop: int) -> int:
        value, width = 0, 4 * self.dim
        with open(self.file, "rb") as file:
            file.seek(start * width)
            left = (stop - start) * width
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise ValueError("The file ends too soon.")
                value, left = zlib.crc32(piece, value), left - len(piece)
        return value

    @property
    def _size(self) -> int:
        return 4 * self.count * self.dim

    def open(self) -> np.ndarray:
        if self.count == 0:
            return np.zeros((0, self.dim), np.float32)
        return np.memmap(self.file, "<f4", mode="r", shape=(self.count, self.dim))

    def make_folder(self) -> None:
        """Make the folder.

        Raises:
            OSError: If it cannot be written, with what to do.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_file(self._progress)
        except OSError as error:
            raise self._cannot_keep(error) from error

    def claim(self) -> None:
        """Take the whole space on disk; without it a memory map on a full disk would kill the process."""
        if self.done:
            return
        try:
            _allocate(self.file, self._size)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.unlink()
            raise self._cannot_keep(error) from error

    def _cannot_keep(self, error: OSError) -> OSError:
        """Return the error again, with what helps against it."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return OSError(
            error.errno,
            f"The features, {self._size / 1e6:,.1f} MB, cannot be kept ({cause.strerror}). "
            f"{'Free some space' if full else 'Allow writing there'}, or give another `directory` (or TF_DETREG_CACHE)",
            str(self.folder),
        )

    def write(self, file: BinaryIO, rows: np.ndarray, features: np.ndarray) -> None:
        """Put features at `rows`, which ascend; where an image was unreadable, a row is left out."""
        features = np.ascontiguousarray(features, "<f4")
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) > 1) + 1):
            file.seek(int(rows[run[0]]) * 4 * self.dim)
            file.write(features[run].data)
        self.written[rows] = True

    def note(self, file: BinaryIO, done: int) -> None:
        """Write down how far the file is filled, once the features themselves are on disk."""
        file.flush()
        os.fsync(file.fileno())
        start = self._parts[-1][0] if self._parts else 0
        if done > start:
            self._parts.append((done, self._sum(start, done)))
        self.done = done
        skipped = np.flatnonzero(~self.written[:done]).tolist()
        notes = {"done": done, "skipped": skipped, "dim": self.dim, "parts": [list(part) for part in self._parts]}
        write_json(self._progress, manifests.sealed(notes))


def _allocate(path: pathlib.Path, size: int) -> None:
    """Give a file its size and space. What is in it stays: another process may be computing the same features."""
    with open(path, "ab") as file:
        file.truncate(min(file.tell(), size))
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        block = bytes(1 << 20)
        for start in range(file.tell(), size, len(block)):
            file.write(block[: min(len(block), size - start)])


def _fingerprint(backbone: keras.Model, data: ImageSet) -> str:
    digest = hashlib.sha256(f"{FORMAT} {data.image_size} {len(data)}".encode())
    digest.update(backbone.to_json().encode())
    for weight in backbone.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).data)
    if data.images is not None:
        pixels = data.images[..., :1] if data.images.strides[-1] == 0 else data.images
        for start in range(0, len(pixels), 4096):
            digest.update(np.ascontiguousarray(pixels[start : start + 4096]).data)
    else:
        for path in data.files:
            digest.update(os.fsencode(path) + b"\0" + _state(path))
    return digest.hexdigest()[:24]


def _state(path: str) -> bytes:
    try:
        status = os.stat(path)
    except OSError:
        return b"missing"
    return f"{status.st_size} {status.st_mtime_ns}".encode()

"""The points at which a map is measured."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.analysis.memory import MEMORY
from tf_detreg.analysis.neighbors import _height_width
from tf_detreg.progress import ticker


def take(
    data: Any,
    labels: ArrayLike | None,
    random: np.random.Generator,
    count: int,
    name: str,
    progress: bool | None,
    memory: float = MEMORY,
) -> tuple[tf.Tensor, np.ndarray]:
    """Return some inputs as floats and their labels, in a quarter of the memory, so that pairs of one class exist."""
    if labels is None and not hasattr(data, "labels"):
        raise checks.invalid(name, "be given beside an array of images or features", "None")
    labels = np.asarray(data.labels if labels is None else labels).reshape(-1)
    if len(labels) != len(data):
        raise ValueError(f"`{name}` must be one per sample; received {len(labels)} for {len(data)} samples.")
    classes = random.permutation(np.unique(labels))
    counts = np.array([np.sum(labels == c) for c in classes])
    if len(classes) < 2 or counts.max() < 2:
        raise ValueError(
            f"`{name}` must hold two classes or more, one of them with two samples; received {len(classes)}."
        )
    chosen = classes[: max(2, int(np.searchsorted(np.cumsum(counts), count)) + 1)]
    index = random.permutation(np.flatnonzero(np.isin(labels, chosen)))
    row = 4 * int(np.prod((*_height_width(data), 3) if hasattr(data, "indexed") else np.shape(data)[1:]))
    most = min(2 * count, max(4, int(memory * 2**28 / row)))
    if len(index) > most:
        index = index[np.sort(rows_of_each_class(labels[index], most))]
    if hasattr(data, "indexed"):
        index = np.sort(index)
        # By index: files that cannot be read are left out. Few at a time: batches are read ahead.
        batches = []
        with ticker("Reading images", len(index), progress) as tick:
            for items, rows in data.subset(index).indexed(int(np.clip(2**24 // row, 1, 128))):
                batches.append((items.numpy(), rows.numpy()))
                tick(len(rows))
        items, rows = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return tf.constant(items, tf.float32), labels[index[rows]]
    return tf.constant(np.asarray(data)[index], tf.float32), labels[index]


def rows_of_each_class(labels: np.ndarray, most: int) -> np.ndarray:
    """Return `most` row numbers, class by class in turn and two at a time: all pairs would fill the memory."""
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    number = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return order[np.lexsort((ranked, number // 2))[:most]]

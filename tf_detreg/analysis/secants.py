"""Ratios of distances after and before a map, on pairs of points."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_detreg.analysis.memory import MEMORY, BoundedMap, batched, flat, forward_map
from tf_detreg.analysis.samples import rows_of_each_class
from tf_detreg.progress import ticker

POPULATIONS = ("within class", "between classes", "interpolated", "unseen classes")


def secant_ratios(function: Callable[..., Any], a: tf.Tensor, b: tf.Tensor, memory: float = MEMORY) -> np.ndarray:
    """Return `‖f(a) − f(b)‖ / ‖a − b‖`, row by row; rows where the two points are the same are left out."""
    forward = forward_map(function, a, memory)
    return _ratios(_distances(batched(forward, a), batched(forward, b)), _distances(a, b))


def secants_of_populations(
    forward: BoundedMap,
    points: Sequence[tuple[tf.Tensor, np.ndarray]],
    pairs: int,
    epsilon: float,
    random: np.random.Generator,
    title: str,
    progress: bool | None,
) -> dict[str, np.ndarray]:
    """Return the ratios by population. Every point is mapped once, however many pairs it is in."""
    x, labels = points[0]
    within, between = pairs_of_rows(labels, pairs, random)
    with ticker(title, sum(len(inputs) for inputs, _ in points) + len(within[0]), progress) as tick:
        y = batched(forward, x, tick)
        found = {"within class": _secants_of(x, y, *within), "between classes": _secants_of(x, y, *between)}
        interpolated = []
        for a, b in _steps(within, x):
            start, end, value = (tf.gather(part, rows) for part, rows in ((x, a), (x, b), (y, a)))
            point = start + epsilon * (end - start)
            interpolated.append(_ratios(_distances(value, batched(forward, point, tick)), _distances(start, point)))
        found["interpolated"] = np.concatenate(interpolated)
        if len(points) > 1:
            x, labels = points[1]
            rows = np.concatenate(pairs_of_rows(labels, pairs // 2 or 1, random), axis=1)
            found["unseen classes"] = _secants_of(x, batched(forward, x, tick), *rows)
    return {name: found[name] for name in POPULATIONS if name in found}


def _secants_of(x: tf.Tensor, y: tf.Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the ratios of pairs, given by row numbers, of points `x` with values `y`."""
    parts = [
        _ratios(*(_distances(tf.gather(part, a), tf.gather(part, b)) for part in (y, x)))
        for a, b in _steps((first, second), x)
    ]
    return np.concatenate(parts)


def _steps(pairs: Sequence[np.ndarray], x: tf.Tensor, held: int = 2**25) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return some pairs of row numbers at a time: copies of the points that belong to them take 32 MB."""
    size = max(1, held // (x.dtype.size * int(np.prod(x.shape[1:]))))
    first, second = pairs
    return ((first[i : i + size], second[i : i + size]) for i in range(0, max(1, len(first)), size))


def _ratios(rise: np.ndarray, run: np.ndarray) -> np.ndarray:
    result: np.ndarray = rise[run > 0] / run[run > 0]
    return result


def _distances(a: tf.Tensor, b: tf.Tensor) -> np.ndarray:
    result: np.ndarray = tf.norm(flat(a - b), axis=-1).numpy()
    return result


def pairs_of_rows(
    labels: np.ndarray, count: int, random: np.random.Generator, most: int = 4096
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return row numbers of up to `count` pairs within a class, and of as many between classes."""
    rows = rows_of_each_class(labels, most) if len(labels) > most else np.arange(len(labels))
    first, second = np.triu_indices(len(rows), 1)
    same = labels[rows][first] == labels[rows][second]
    chosen = [random.permutation(np.flatnonzero(mask))[:count] for mask in (same, ~same)]
    return [(rows[first[index]], rows[second[index]]) for index in chosen]

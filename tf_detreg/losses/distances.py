"""Distances and similarities of all pairs, and masked reductions, each with a finite gradient everywhere."""

import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import log1p_sum_exp
from tf_detreg.vectors import unit

DISTANCES = ("euclidean", "squared", "cosine")


def check_distance(distance: str | None) -> str:
    """Return the name of a distance, or raise a `ValueError` that lists the known ones."""
    return checks.choice("distance", distance, DISTANCES)


def similarities(anchors: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Return all inner products, `(B, M)`: cosine similarities if the rows have length 1."""
    return tf.matmul(anchors, references, transpose_b=True)


def squared_distances(anchors: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Return all `||a - b||²`, `(B, M)`, by the Gram formula.

    What is smaller than the rounding error of that formula is set to 0, with gradient 0: duplicates have distance
    exactly 0, and a square root of the result has a bounded gradient.
    """
    rows = tf.reduce_sum(tf.square(anchors), axis=1)[:, None]
    columns = tf.reduce_sum(tf.square(references), axis=1)[None, :]
    squares = rows + columns - 2 * similarities(anchors, references)
    resolution = 8 * tf.experimental.numpy.finfo(squares.dtype.as_numpy_dtype).eps
    return tf.where(squares > resolution * tf.stop_gradient(rows + columns), squares, 0)


def root(squares: tf.Tensor) -> tf.Tensor:
    """Return square roots, with gradient 0 instead of infinity at 0."""
    positive = squares > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squares, 1)), 0)


def distances(anchors: tf.Tensor, references: tf.Tensor, distance: str | None) -> tf.Tensor:
    """Return all distances between two sets of vectors, `(B, M)`.

    Args:
        anchors: `(B, dim)`.
        references: `(M, dim)`.
        distance: `"euclidean"` `||a - b||`, `"squared"` `||a - b||²`, or `"cosine"` `1 - cos(a, b)`.
    """
    if check_distance(distance) == "cosine":
        return 1 - similarities(unit(anchors), unit(references))
    squares = squared_distances(anchors, references)
    return squares if distance == "squared" else root(squares)


def masked_logsumexp(values: tf.Tensor, mask: tf.Tensor, axis: int = 1) -> tf.Tensor:
    """Return `log Σ exp(v)` over the entries of a mask; where it is empty a very small finite number."""
    lowest = tf.constant(values.dtype.min / 4, values.dtype)
    peak = tf.reduce_max(tf.where(mask, values, lowest), axis=axis, keepdims=True)
    peak = tf.stop_gradient(tf.where(peak > lowest, peak, 0))
    total = tf.reduce_sum(tf.where(mask, tf.exp(tf.where(mask, values - peak, 0)), 0), axis=axis)
    found = total > 0
    return tf.where(found, tf.math.log(tf.where(found, total, 1)) + tf.squeeze(peak, axis), lowest)


def masked_log1p_sum_exp(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return `log(1 + Σ exp(v))` over the entries of a mask in each row, `(B,)`; 0 where it is empty."""
    return log1p_sum_exp(tf.where(mask, values, float("-inf")), axis=1)


def masked_min(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the smallest entry of each row inside a mask, `(B, 1)`; infinity where it is empty."""
    return tf.reduce_min(tf.where(mask, values, float("inf")), axis=1, keepdims=True)


def masked_max(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the largest entry of each row inside a mask, `(B, 1)`; minus infinity where it is empty."""
    return tf.reduce_max(tf.where(mask, values, float("-inf")), axis=1, keepdims=True)


def masked_sum(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Sum of each row over a mask, `(B,)`."""
    return tf.reduce_sum(tf.where(mask, values, 0), axis=1)

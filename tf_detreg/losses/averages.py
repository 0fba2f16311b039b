"""Averages over pairs, kept apart by anchor so that Keras' reduction and sample weights still apply."""

import tensorflow as tf

AVERAGES = ("nonzero", "all", "anchors")


def average(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Scale values of anchors `(B,)` so that their mean over the batch is their sum over `count`; 0 if that is 0."""
    batch = tf.cast(tf.size(values), values.dtype)
    return tf.math.divide_no_nan(values * batch, tf.cast(count, values.dtype))


def count_true(mask: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return how many entries of a boolean tensor are True, as a float."""
    return tf.reduce_sum(tf.cast(mask, dtype))


def anchor_average(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return values `(B,)` whose mean over the batch is the mean over the anchors in a mask `(B,)`."""
    return average(tf.where(mask, values, 0), count_true(mask, values.dtype))


def pair_average(values: tf.Tensor, mask: tf.Tensor, kind: str = "all") -> tf.Tensor:
    """Return values `(B,)` whose mean over the batch is the average of `values (B, M)` over a mask.

    Args:
        values: Loss of each pair.
        mask: Pairs that exist.
        kind: `"all"` of them count, or only those with a `"nonzero"` loss; `"anchors"` divides by the batch size.
    """
    if kind == "anchors":
        return tf.reduce_sum(tf.where(mask, values, 0), axis=1)
    counted = mask & (values > 0) if kind == "nonzero" else mask
    return average(tf.reduce_sum(tf.where(mask, values, 0), axis=1), count_true(counted, values.dtype))

"""Triplets of a batch that satisfy a condition, listed by index."""

from collections.abc import Callable

import tensorflow as tf

from tf_detreg._compat import compiled_by_xla
from tf_detreg.losses.pairs import MinedTriplets, Pairs


def list_triplets(pairs: Pairs, condition: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> MinedTriplets:
    """List the triplets for which a condition holds.

    Memory grows with (number of positive pairs) × M, which for P classes × K images is K/B of B³. What XLA compiles
    (`jit_compile=True`) has fixed sizes, and takes all of B × M × M.

    Args:
        pairs: The batch.
        condition: `(anchors (n,), positives (n,)) -> boolean (n, M)`: which references are negatives to be kept.
    """
    anchors, positives = _every_pair(pairs) if compiled_by_xla() else _positive_pairs(pairs)
    exist = tf.gather_nd(pairs.positives, tf.stack([anchors, positives], axis=1))[:, None]
    keep = condition(anchors, positives) & tf.gather(pairs.negatives, anchors) & exist
    found = tf.cast(tf.where(keep), tf.int32)
    return MinedTriplets(tf.gather(anchors, found[:, 0]), tf.gather(positives, found[:, 0]), found[:, 1])


def _positive_pairs(pairs: Pairs) -> tuple[tf.Tensor, tf.Tensor]:
    listed = tf.cast(tf.where(pairs.positives), tf.int32)
    return listed[:, 0], listed[:, 1]


def _every_pair(pairs: Pairs) -> tuple[tf.Tensor, tf.Tensor]:
    """Return all pairs in a fixed order: from a list that is made from a list, XLA loses entries without a word."""
    rows, columns = tf.meshgrid(*(tf.range(size) for size in tf.unstack(tf.shape(pairs.positives))), indexing="ij")
    return tf.reshape(rows, [-1]), tf.reshape(columns, [-1])

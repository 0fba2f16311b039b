"""Triplets of a batch that satisfy a condition, listed by index."""

from collections.abc import Callable

import tensorflow as tf

from tf_detreg.losses.pairs import MinedTriplets, Pairs


def list_triplets(pairs: Pairs, condition: Callable) -> MinedTriplets:
    """Lists the triplets for which a condition holds.

    Memory grows with (number of positive pairs) × M, which for P classes × K images is K/B of B³.

    Args:
        pairs: the batch.
        condition: `(anchors (n,), positives (n,)) -> boolean (n, M)`: which references are negatives to be kept.
    """
    listed = tf.cast(tf.where(pairs.positives), tf.int32)
    anchors, positives = listed[:, 0], listed[:, 1]
    keep = condition(anchors, positives) & tf.gather(pairs.negatives, anchors)
    found = tf.cast(tf.where(keep), tf.int32)
    return MinedTriplets(tf.gather(anchors, found[:, 0]), tf.gather(positives, found[:, 0]), found[:, 1])

"""Each anchor's negatives in order of distance: what triplet losses need of them without a tensor of all triplets."""

import tensorflow as tf

from tf_detreg.losses.pairs import Pairs


class SortedNegatives:
    """Distances of each anchor to its negatives, sorted along the row, `(B, M)`.

    A question about all triplets (anchor, positive, negative) becomes a binary search in the anchor's row, one for
    each pair (anchor, positive): O(B² log B) time and O(B²) memory.

    Args:
        pairs: the batch.
        matrix: distances `(B, M)`.
    """

    def __init__(self, pairs: Pairs, matrix: tf.Tensor):
        keys = tf.stop_gradient(tf.where(pairs.negatives, matrix, float("inf")))
        order = tf.argsort(keys, axis=1)
        self.keys = tf.gather(keys, order, batch_dims=1)
        negatives = tf.gather(matrix, order, batch_dims=1)
        self.values = tf.where(tf.math.is_finite(self.keys), negatives, 0)
        self.sums = tf.cumsum(self.values, axis=1)
        self.counts = tf.reduce_sum(tf.cast(pairs.negatives, tf.int32), axis=1, keepdims=True)

    def closer_than(self, bounds: tf.Tensor, inclusive: bool = False) -> tf.Tensor:
        """How many negatives of each row lie below each bound `(B, M)`, int32; or at it, too."""
        bounds = tf.stop_gradient(bounds)
        found = tf.searchsorted(self.keys, bounds, side="right" if inclusive else "left")
        return tf.minimum(found, self.counts)

    def nearest_sums(self, counts: tf.Tensor) -> tf.Tensor:
        """The sum of the distances to the nearest `counts` negatives, `(B, M)`."""
        return tf.where(counts > 0, tf.gather(self.sums, tf.maximum(counts - 1, 0), batch_dims=1), 0)

    def at(self, places: tf.Tensor) -> tf.Tensor:
        """The distance to the negative that stands at a place of the order, `(B, M)`."""
        return tf.gather(self.values, tf.clip_by_value(places, 0, tf.maximum(self.counts - 1, 0)), batch_dims=1)

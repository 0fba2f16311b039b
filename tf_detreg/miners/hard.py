"""Triplets whose negative is nearer than the positive."""

import keras
import tensorflow as tf

from tf_detreg.losses.pairs import Mined, Pairs
from tf_detreg.miners.base import Miner
from tf_detreg.miners.triplets import list_triplets


@keras.saving.register_keras_serializable("tf_detreg", name="HardMiner")
class Hard(Miner):
    """All hard triplets: `d_an <= d_ap`, Euclidean distances of unit vectors.

    Other code: the set is that of pytorch-metric-learning's `TripletMarginMiner(type_of_triplets="hard")`. With
    `losses.Triplet` write `Triplet(negatives="hard")` instead, which is the same without listing triplets.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedTriplets`: index vectors of anchors, positives and negatives.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> mined = Hard()([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> [index.numpy().tolist() for index in mined]
    [[0, 1], [1, 0], [2, 2]]
    """

    def choose(self, pairs: Pairs) -> Mined:
        matrix = pairs.matrix

        def condition(anchors: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
            far = tf.gather_nd(matrix, tf.stack([anchors, positives], axis=1))[:, None]
            return tf.gather(matrix, anchors) <= far

        return list_triplets(pairs, condition)

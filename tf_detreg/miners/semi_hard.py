"""Triplets whose negative is farther than the positive, but by less than a margin."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.pairs import Mined, Pairs
from tf_detreg.miners.base import Miner
from tf_detreg.miners.triplets import list_triplets


@keras.saving.register_keras_serializable("tf_detreg", name="SemiHardMiner")
class SemiHard(Miner):
    """All semi-hard triplets: `0 < d_an - d_ap <= m`, Euclidean distances of unit vectors.

    Paper settings: m = 0.2, on squared distances; FaceNet takes one of them for each pair; for its rule see
    `losses.TripletSemiHard`.
    Other code: the set is that of pytorch-metric-learning's `TripletMarginMiner(type_of_triplets="semihard")`. With
    `losses.Triplet` write `Triplet(negatives="semi_hard")` instead, which is the same without listing triplets.

    Args:
        margin: m. Default 0.2.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedTriplets`: index vectors of anchors, positives and negatives.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> mined = SemiHard()([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.2, 0.98]])
    >>> [index.numpy().tolist() for index in mined]
    [[1], [0], [2]]

    Reference: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015.
    """

    def __init__(self, margin: float = 0.2) -> None:
        self.margin = checks.not_negative("margin", margin)

    def choose(self, pairs: Pairs) -> Mined:
        matrix = pairs.matrix

        def condition(anchors: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
            gaps = tf.gather(matrix, anchors) - tf.gather_nd(matrix, tf.stack([anchors, positives], axis=1))[:, None]
            return (gaps > 0) & (gaps <= self.margin)

        return list_triplets(pairs, condition)

    def get_config(self) -> dict[str, Any]:
        return {"margin": self.margin}

"""Triplets with a wide angle at the negative."""

import math
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.pairs import Mined, Pairs
from tf_detreg.miners.base import Miner
from tf_detreg.miners.triplets import list_triplets


@keras.saving.register_keras_serializable("tf_detreg", name="AngularMiner")
class Angular(Miner):
    r"""Triplets whose angle at the negative exceeds a threshold.

    `atan( d_ap / (2 ||x_n - c||) ) > angle`, `c = (x_a + x_p) / 2`, for unit vectors

    The distance to the center follows from the three sides: `||x_n - c||² = (d_an² + d_pn²)/2 - d_ap²/4`.

    Paper settings: the paper's loss, which is no miner, has angles of 36 to 55 degrees.
    Other code: pytorch-metric-learning's `AngularMiner` measures the embeddings as they are given, without scaling them
    to length 1 as its other miners do; on unit vectors both choose the same triplets.

    Args:
        angle: Threshold in degrees. Default 20.0.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedTriplets`: index vectors of anchors, positives and negatives.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or an angle outside (0, 90).

    Example:

    >>> mined = Angular(45.0)([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> [index.numpy().tolist() for index in mined]
    [[0, 1], [1, 0], [2, 2]]

    Reference: Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017.
    """

    def __init__(self, angle: float = 20.0) -> None:
        self.angle = checks.within("angle", angle, 0, 90, "()")

    def choose(self, pairs: Pairs) -> Mined:
        squares = tf.square(pairs.matrix)
        among = squares if pairs.within else tf.square(pairs.reference_matrix)
        slope = math.tan(math.radians(self.angle))

        def condition(anchors: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
            ap = tf.gather_nd(squares, tf.stack([anchors, positives], axis=1))[:, None]
            to_center = (tf.gather(squares, anchors) + tf.gather(among, positives)) / 2 - ap / 4
            return ap > 4 * slope**2 * to_center

        return list_triplets(pairs, condition)

    def get_config(self) -> dict[str, Any]:
        return {"angle": self.angle}

"""Triplet loss with FaceNet's semi-hard negatives."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import average, count_true
from tf_detreg.losses.distances import masked_max, masked_min
from tf_detreg.losses.each_positive import sum_over_positives
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class TripletSemiHard(PairLoss):
    r"""Triplet loss with one semi-hard negative for each positive pair (FaceNet's rule).

    `L = 1/|Pos| Σ_{(a,p)} [d_ap - d_an* + m]₊` with `n* = argmin {d_an : d_an > d_ap}`; if no negative is farther than
    the positive, `n*` is the farthest one.

    Paper settings: squared Euclidean distance of unit vectors, m = 0.2.
    Other code: this is the rule of TensorFlow Addons' `TripletSemiHardLoss` (there with Euclidean distance, m = 1.0,
    and no normalization: `TripletSemiHard(margin=1.0, distance="euclidean", normalize=False)`). Where it is undefined
    this class gives 0 (no positive pair: Addons divides by zero) or leaves the pair out (no negative).
    pytorch-metric-learning and others call *every* triplet with `0 < d_an - d_ap <= m` semi-hard: that is
    `Triplet(negatives="semi_hard")`.

    Args:
        margin: m. Default 0.2.
        distance: `"squared"`, `"euclidean"` or `"cosine"`. Default `"squared"`.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> loss = TripletSemiHard(margin=0.2)
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])), 4)
    0.3

    Reference: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015.
    """

    default_distance = "squared"

    def __init__(
        self,
        margin: float = 0.2,
        distance: str | None = None,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(distance=distance, normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.margin = checks.not_negative("margin", margin)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        some = tf.reduce_any(pairs.negatives, axis=1, keepdims=True)

        def hinge(chosen: tf.Tensor, exists: tf.Tensor, ap: tf.Tensor, an: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            outside = pairs.negatives & (an > ap)
            nearest, farthest = masked_min(an, outside), masked_max(an, pairs.negatives)
            usable = exists & some
            gaps = ap - tf.where(tf.reduce_any(outside, axis=1, keepdims=True), nearest, farthest)
            hinges = tf.nn.relu(tf.where(usable, gaps, 0) + self.margin)
            return tf.where(usable, hinges, 0)[:, 0], count_true(usable, an.dtype)

        return average(*sum_over_positives(pairs, [pairs.matrix], hinge))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}

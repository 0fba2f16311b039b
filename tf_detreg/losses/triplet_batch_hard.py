"""Batch-hard triplet loss: each anchor with its farthest positive and nearest negative."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import anchor_average
from tf_detreg.losses.distances import masked_max, masked_min
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class TripletBatchHard(PairLoss):
    r"""Batch-hard triplet loss.

    `L = mean_a [max_{p∈P(a)} d_ap - min_{n∈N(a)} d_an + m]₊`, or with `soft` `mean_a log(1 + e^{max d_ap - min d_an})`

    The mean goes over anchors that have a positive and a negative.

    Paper settings: Euclidean distance, P = 18 persons × K = 4 images, the soft form without normalization.
    Other code: equals TensorFlow Addons' `TripletHardLoss` (m = 1.0 there), which also counts anchors without a
    positive, with `max d_ap = 0`.

    Args:
        margin: m. Default 0.2.
        soft: Softplus instead of the hinge; it has no margin. Default False.
        distance: `"euclidean"`, `"squared"` or `"cosine"`. Default `"euclidean"`.
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

    >>> loss = TripletBatchHard()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    0.8508

    Reference: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017.
    """

    default_distance = "euclidean"

    def __init__(
        self,
        margin: float = 0.2,
        soft: bool = False,
        distance: str | None = None,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(distance=distance, normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.margin = checks.not_negative("margin", margin)
        self.soft = soft

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        matrix = pairs.matrix
        usable = tf.reduce_any(pairs.positives, axis=1) & tf.reduce_any(pairs.negatives, axis=1)
        gaps = (masked_max(matrix, pairs.positives) - masked_min(matrix, pairs.negatives))[:, 0]
        gaps = tf.where(usable, gaps, 0)
        return anchor_average(tf.nn.softplus(gaps) if self.soft else tf.nn.relu(gaps + self.margin), usable)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "soft": self.soft}

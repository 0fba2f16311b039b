"""Generalized lifted structured loss: soft hardest positive and soft hardest negative of each anchor."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import anchor_average
from tf_detreg.losses.distances import masked_logsumexp
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class GeneralizedLiftedStructure(PairLoss):
    r"""Generalized lifted structured loss.

    `L_i = [ log Σ_{p∈P(i)} e^{d_ip} + log Σ_{n∈N(i)} e^{m - d_in} ]₊`

    The mean goes over anchors that have both a positive and a negative.

    Paper settings: m = 1, Euclidean distance.
    Other code: pytorch-metric-learning also counts anchors without a positive or a negative, with an empty sum's
    logarithm taken as 0; in batches of P classes × K images both are equal.

    Args:
        margin: m. Default 1.0.
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

    >>> loss = GeneralizedLiftedStructure()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    1.6508

    Reference: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017.
    """

    default_distance = "euclidean"

    def __init__(
        self,
        margin: float = 1.0,
        distance: str | None = None,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(distance=distance, normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.margin = checks.number("margin", margin)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        matrix = pairs.matrix
        energy = masked_logsumexp(matrix, pairs.positives) + masked_logsumexp(self.margin - matrix, pairs.negatives)
        usable = tf.reduce_any(pairs.positives, axis=1) & tf.reduce_any(pairs.negatives, axis=1)
        return anchor_average(tf.nn.relu(energy), usable)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}

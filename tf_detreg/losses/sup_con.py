"""Supervised contrastive loss."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import anchor_average
from tf_detreg.losses.distances import masked_logsumexp, masked_sum
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class SupCon(PairLoss):
    r"""Supervised contrastive loss (the form with the sum outside the logarithm, `L_out`).

    `L_i = -1/|P(i)| Σ_{p∈P(i)} log( e^{s_ip/τ} / Σ_{k≠i} e^{s_ik/τ} )`

    with cosine similarity `s`; the mean goes over anchors that have a positive.

    Paper settings: τ = 0.1.
    Other code: The authors multiply by τ / 0.07, a constant that is left out here and in pytorch-metric-learning. In
    their mean, anchors without a positive count with a loss of 0. pytorch-metric-learning leaves anchors with a loss of
    exactly 0 out of the mean, and gives 0 if the batch has no negative.

    Args:
        temperature: τ. Default 0.1.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or a temperature that is not positive.

    Example:

    >>> loss = SupCon(temperature=1.0)
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    1.1043

    Reference: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.temperature = checks.positive("temperature", temperature)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        logits = pairs.similarities / self.temperature
        normalizers = masked_logsumexp(logits, pairs.positives | pairs.negatives)
        counts = tf.reduce_sum(tf.cast(pairs.positives, logits.dtype), axis=1)
        means = tf.math.divide_no_nan(masked_sum(logits, pairs.positives), counts)
        return anchor_average(normalizers - means, counts > 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}

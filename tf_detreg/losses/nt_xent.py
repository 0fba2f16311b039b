"""Normalized temperature-scaled cross-entropy of positive pairs."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import pair_average
from tf_detreg.losses.distances import masked_logsumexp
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class NTXent(PairLoss):
    r"""NT-Xent loss: each positive pair against the anchor's negatives.

    `L = mean_{(i,p) pos} -log( e^{s_ip/τ} / (e^{s_ip/τ} + Σ_{n∈N(i)} e^{s_in/τ}) )`

    with cosine similarity `s`. Other positives of the anchor stay out of the denominator.

    Paper settings: SimCLR has one positive for each anchor (two views of an image; give both the same label), and
    τ = 0.1 on ImageNet, 0.5 on CIFAR-10.
    Other code: pytorch-metric-learning's is the same, τ = 0.07 included; it gives 0 if the batch has no negative at
    all, as the equation does.

    Args:
        temperature: τ. Default 0.07.
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

    >>> loss = NTXent(temperature=1.0)
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    1.1043

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    """

    def __init__(
        self,
        temperature: float = 0.07,
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
        others = masked_logsumexp(logits, pairs.negatives)[:, None]
        return pair_average(tf.nn.softplus(others - logits), pairs.positives)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}

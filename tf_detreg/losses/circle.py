"""Circle loss: pairs weighted by how far they are from their optimum."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import average, count_true
from tf_detreg.losses.distances import masked_logsumexp
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class Circle(PairLoss):
    r"""Circle loss.

    `L_i = softplus( LSE_{p}( -γ [1 + m - s_ip]₊ (s_ip - (1 - m)) ) + LSE_{n}( γ [s_in + m]₊ (s_in - m) ) )`

    with cosine similarity `s` and `LSE = log Σ exp`; the weights `[·]₊` carry no gradient. Anchors without a positive
    or without a negative are left out; the mean goes over anchors with a loss above 0.

    Paper settings: m = 0.4, γ = 80 for fine-grained retrieval; 0.25, 128 for persons; 0.25, 256 for faces.
    Other code: pytorch-metric-learning's is the same, value for value. A much used re-implementation takes one softplus
    over all pairs of a batch instead of one for each anchor.

    Args:
        margin: m. Default 0.4.
        scale: γ. Default 80.0.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or a scale that is not positive.

    Example:

    >>> loss = Circle(scale=1.0)
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    1.4497

    Reference: Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020.
    """

    def __init__(
        self,
        margin: float = 0.4,
        scale: float = 80.0,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.margin = checks.number("margin", margin)
        self.scale = checks.positive("scale", scale)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        similarities = pairs.similarities
        fixed = tf.stop_gradient(similarities)
        pull = -self.scale * tf.nn.relu(1 + self.margin - fixed) * (similarities - (1 - self.margin))
        push = self.scale * tf.nn.relu(fixed + self.margin) * (similarities - self.margin)
        logits = masked_logsumexp(pull, pairs.positives) + masked_logsumexp(push, pairs.negatives)
        usable = tf.reduce_any(pairs.positives, axis=1) & tf.reduce_any(pairs.negatives, axis=1)
        losses = tf.where(usable, tf.nn.softplus(tf.where(usable, logits, 0)), 0)
        return average(losses, count_true(losses > 0, losses.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "scale": self.scale}

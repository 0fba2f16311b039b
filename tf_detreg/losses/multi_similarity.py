"""Multi-Similarity loss, with optional direction regularization."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses import distances
from tf_detreg.losses.direction import hardest_positive_direction
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class MultiSimilarity(PairLoss):
    r"""Multi-Similarity loss, with optional direction regularization.

    `L = 1/B Σ_i { 1/α log[1 + Σ_{p∈P(i)} e^{-α(s_ip - λ)}] + 1/β log[1 + Σ_{n∈N(i)} e^{β(s_in - λ - γ r_in)}] }`

    with cosine similarity `s`; `P` and `N` are what the miner leaves. Direction regularization (γ > 0) weakens the
    push of a negative that lies on the hardest positive's side: `r_in = cos(f_n - f_i, f_p* - f_i)`, where
    `p* = argmin_{p∈P(i)} s_ip`, so that the push turns orthogonal to the direction anchor → positive.

    Paper settings: α = 2, β = 50, λ = 1 with `miner=miners.MultiSimilarity(0.1)`; the authors' code has β = 40 and
    λ = 0.5, and λ = 0.5 is what others took over, as this class does. With direction: λ = 0.6, γ = 0.28
    (the run of a reproduction, whose class has 0.7 and 0.3 by default; the paper gives none).
    Other code: The authors skip an anchor whose positives *or*
    negatives are empty after mining, and fail on a class with one sample; here, as in pytorch-metric-learning, the
    side that is left counts, as the equation says. One re-implementation averages over the batch before the
    logarithm; a second takes the dot product of unnormalized differences for r. Neither is the paper's.

    Args:
        alpha: α. Default 2.0.
        beta: β. Default 50.0.
        base: λ. Default 0.5.
        direction: γ. Default 0.0: no direction regularization.
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

    >>> loss = MultiSimilarity()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    0.6711

    References:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019.
        Mohan et al., "Moving in the Right Direction: A Regularization for Deep Metric Learning", CVPR 2020.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        direction: float = 0.0,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.alpha = checks.positive("alpha", alpha)
        self.beta = checks.positive("beta", beta)
        self.base = checks.number("base", base)
        self.direction = checks.number("direction", direction)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        similarities = pairs.similarities
        pull = distances.masked_log1p_sum_exp(-self.alpha * (similarities - self.base), pairs.positives)
        push = similarities - self.base
        if self.direction:
            push -= self.direction * hardest_positive_direction(pairs, similarities)
        return pull / self.alpha + distances.masked_log1p_sum_exp(self.beta * push, pairs.negatives) / self.beta

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "beta": self.beta,
            "base": self.base,
            "direction": self.direction,
        }

"""Contrastive loss: positives close, negatives beyond a margin."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import AVERAGES, pair_average
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class Contrastive(PairLoss):
    r"""Contrastive loss.

    `L = mean_{pos} [d_ij - m⁺]₊^k / k + mean_{neg} [m⁻ - d_ij]₊^k / k`,  k = `power`

    Each side is averaged by itself. With `average="anchors"` both sums are divided by the batch size instead, so that
    the side with more pairs weighs more.

    Paper settings: Hadsell et al. have k = 2 and m⁺ = 0, and sum over pairs.
    Other code: pytorch-metric-learning has k = 1 (distances not squared) and averages over the pairs with a positive
    loss: `Contrastive(power=1)`. TensorFlow Addons scores given pairs by `y d² + (1 - y) [m - d]₊²`, which is twice
    k = 2. In cosine form (`distance="cosine"`, d = 1 - s) a margin of 0.5 on the similarity is `negative_margin=0.5`.

    Args:
        positive_margin: m⁺. Default 0.0.
        negative_margin: m⁻. Default 1.0.
        power: k, 1 or 2. Default 2.
        average: `"nonzero"`, over the pairs with a loss above 0; `"all"` pairs; or `"anchors"`, the sum over the pairs
            of an anchor, averaged over the batch. Default `"nonzero"`.
        distance: `"euclidean"`, `"squared"` or `"cosine"`. Default `"euclidean"`.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or an unknown option.

    Example:

    >>> loss = Contrastive()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    1.0366

    Reference: Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
    """

    default_distance = "euclidean"

    def __init__(
        self,
        positive_margin: float = 0.0,
        negative_margin: float = 1.0,
        power: int = 2,
        average: str = "nonzero",
        distance: str | None = None,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(distance=distance, normalize=normalize, miner=miner, reduction=reduction, name=name)
        if isinstance(power, bool) or power not in (1, 2):
            raise checks.invalid("power", "be 1 or 2", checks.shown(power))
        self.positive_margin = checks.number("positive_margin", positive_margin)
        self.negative_margin = checks.number("negative_margin", negative_margin)
        self.power = power
        self.average = checks.choice("average", average, AVERAGES)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        matrix = pairs.matrix
        pull = self.raised(matrix - self.positive_margin)
        push = self.raised(self.negative_margin - matrix)
        return pair_average(pull, pairs.positives, self.average) + pair_average(push, pairs.negatives, self.average)

    def raised(self, violation: tf.Tensor) -> tf.Tensor:
        """Return `[v]₊^k / k`."""
        hinge = tf.nn.relu(violation)
        return hinge if self.power == 1 else tf.square(hinge) / 2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "positive_margin": self.positive_margin,
            "negative_margin": self.negative_margin,
            "power": self.power,
            "average": self.average,
        }

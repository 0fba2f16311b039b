"""FastAP: average precision made differentiable by soft histograms of distances."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import anchor_average
from tf_detreg.losses.distances import squared_distances
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class FastAP(PairLoss):
    r"""FastAP loss.

    `L_i = 1 - 1/|P(i)| Σ_{l=0..L} h⁺_l H⁺_l / H_l`

    with `h⁺_l` the soft count of positives at squared distance `4 l / L` (a triangular kernel as wide as the bins),
    `H⁺_l` its cumulative sum and `H_l` that of all samples. The mean goes over anchors with a positive.

    Paper settings: L = 10 bins, unit vectors.
    Other code: The value equals the authors' and pytorch-metric-learning's, the gradient that of the latter. The
    authors write the backward pass by hand: their gradient is B/2 times this one, so that a rate of theirs is to be
    multiplied by B/2 here (with SGD; adaptive methods do not see the factor).

    Args:
        num_bins: L. Default 10.
        normalize: Must be `True`. Default True.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range, less than one bin, or `normalize=False`.

    Example:

    >>> loss = FastAP()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    0.5

    Reference: Cakir et al., "Deep Metric Learning to Rank", CVPR 2019.
    """

    def __init__(
        self,
        num_bins: int = 10,
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, miner=miner, reduction=reduction, name=name)
        if not self.normalize:
            raise checks.invalid("normalize", "be True: the bins cover the distances of unit vectors", "False")
        self.num_bins = checks.integer("num_bins", num_bins, 1)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        places = squared_distances(pairs.anchors, pairs.references) * (self.num_bins / 4)
        zero = tf.zeros([], places.dtype)
        outside = tf.constant(-2.0, places.dtype)  # reached by no bin
        positive = tf.where(pairs.positives, places, outside)
        present = tf.where(pairs.positives | pairs.negatives, places, outside)
        found = found_positive = precision = zero
        for edge in range(self.num_bins + 1):
            here_positive = tf.reduce_sum(tf.nn.relu(1 - tf.abs(positive - edge)), axis=1)
            found_positive += here_positive
            found += tf.reduce_sum(tf.nn.relu(1 - tf.abs(present - edge)), axis=1)
            precision += tf.math.divide_no_nan(here_positive * found_positive, found)
        counts = tf.reduce_sum(tf.cast(pairs.positives, places.dtype), axis=1)
        return anchor_average(1 - tf.math.divide_no_nan(precision, counts), counts > 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bins": self.num_bins}

"""Lifted structured loss: each positive pair against all negatives of both its ends."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import pair_average
from tf_detreg.losses.distances import masked_logsumexp
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class LiftedStructure(PairLoss):
    r"""Lifted structured loss.

    `J_ij = log( Σ_{k∈N(i)} e^{m - d_ik} + Σ_{l∈N(j)} e^{m - d_jl} ) + d_ij`,  `L = 1/(2|Pos|) Σ_{(i,j)∈Pos} [J_ij]₊²`

    The two sums are one number for each sample, so the whole takes O(B²) time and memory.

    Paper settings: m = 1, Euclidean distance.
    Other code: TensorFlow Addons and pytorch-metric-learning agree with this (they need a matrix of positive × negative
    pairs). tensorflow-similarity's loss of this name is another one: cosine distance, the hardest positive only, no
    hinge, no square.

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

    >>> loss = LiftedStructure()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    2.7671

    Reference: Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016.
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
        rows = masked_logsumexp(self.margin - matrix, pairs.negatives, axis=1)[:, None]
        columns = masked_logsumexp(self.margin - matrix, pairs.negatives, axis=0)[None, :]
        peak = tf.stop_gradient(tf.maximum(rows, columns))
        energy = peak + tf.math.log(tf.exp(rows - peak) + tf.exp(columns - peak)) + matrix
        return pair_average(tf.square(tf.nn.relu(energy)) / 2, pairs.positives)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}

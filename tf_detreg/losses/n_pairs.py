"""N-pair loss: one positive pair from each class, the other classes' positives as negatives."""

import keras
import tensorflow as tf

from tf_detreg.losses.averages import anchor_average
from tf_detreg.losses.distances import masked_logsumexp, masked_sum
from tf_detreg.losses.pair_loss import PairLoss


@keras.saving.register_keras_serializable("tf_detreg")
class NPairs(PairLoss):
    r"""N-pair loss.

    `L = mean_i -log( e^{f_i·f_i⁺} / (e^{f_i·f_i⁺} + Σ_{j≠i} e^{f_i·f_j⁺}) ) + λ mean ||f||²`

    on embeddings that are *not* normalised: their length is the temperature. Of each class in the batch the first
    sample is the anchor and its first positive is `f⁺`; classes with one sample are left out.

    Paper settings: one pair of each class in a batch, no normalisation, a small λ.
    Other code: TensorFlow Addons' `NpairsLoss` takes anchors · positives as a matrix and gives the same value;
    pytorch-metric-learning the same with an unnormalised dot product. Roth et al. use λ = 0.005.

    Args:
        penalty: λ, against growing embeddings. Defaults to `0.0`.
        normalize: scale the embeddings to length 1 first. Defaults to `False`.
        **kwargs: `miner=None`, `reduction`, `name`: see `PairLoss`.

    Call arguments:
        labels: integers `(B,)` or `(B, 1)`.
        embeddings: floats `(B, dim)`.

    Raises:
        ValueError: for labels of a wrong type, shape or range.

    Example:

    >>> loss = NPairs()
    >>> round(float(loss([0, 0, 1, 1], [[2.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])), 4)
    0.1269

    Reference: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS 2016.
    """

    def __init__(self, penalty: float = 0.0, normalize: bool = False, **kwargs):
        super().__init__(normalize=normalize, **kwargs)
        self.penalty = penalty

    def per_anchor(self, pairs):
        logits = pairs.similarities
        own = _first_positives(pairs)
        anchors = tf.reduce_any(own, axis=1)
        columns = tf.reduce_any(own, axis=0)[None, :] & tf.ones_like(own)
        losses = anchor_average(masked_logsumexp(logits, columns) - masked_sum(logits, own), anchors)
        if self.penalty:
            losses += self.penalty * tf.reduce_sum(tf.square(pairs.anchors), axis=1)
        return losses

    def get_config(self):
        return {**super().get_config(), "penalty": self.penalty}


def _first_positives(pairs) -> tf.Tensor:
    """The chosen pairs, boolean `(B, M)`: the first positive of the first anchor of each class that has any."""
    usable = tf.reduce_any(pairs.positives, axis=1)
    size = tf.size(pairs.labels)
    earlier = tf.range(size)[:, None] > tf.range(size)[None, :]
    same = (pairs.labels[:, None] == pairs.labels[None, :]) & usable[None, :]
    leads = usable & ~tf.reduce_any(same & earlier, axis=1)
    first = tf.argmax(tf.cast(pairs.positives, tf.int32), axis=1, output_type=tf.int32)
    here = tf.range(tf.shape(pairs.positives)[1])[None, :] == first[:, None]
    return here & leads[:, None]

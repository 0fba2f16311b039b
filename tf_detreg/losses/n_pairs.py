"""N-pair loss: one positive pair from each class, the other classes' positives as negatives."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import average
from tf_detreg.losses.distances import similarities
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class NPairs(PairLoss):
    r"""N-pair loss.

    `L = mean_i -log( e^{f_i·f_i⁺} / (e^{f_i·f_i⁺} + Σ_{j≠i} e^{f_i·f_j⁺}) ) + λ mean ||f||²`

    on embeddings that are *not* normalized: their length is the temperature. Of each class in the batch the first
    sample is the anchor and its first positive is `f⁺`; classes with one sample are left out.

    Paper settings: one pair of each class in a batch, no normalization, a small λ.
    Other code: TensorFlow Addons' `NpairsLoss` takes anchors · positives as a matrix and gives the same value;
    pytorch-metric-learning the same with an unnormalized dot product. Roth et al. use λ = 0.005.

    Args:
        penalty: λ, against growing embeddings. Default 0.0.
        normalize: Scale the embeddings to length 1 first. Default False.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> loss = NPairs()
    >>> round(float(loss([0, 0, 1, 1], [[2.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])), 4)
    0.1269

    Reference: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS 2016.
    """

    def __init__(
        self,
        penalty: float = 0.0,
        normalize: bool = False,
        *,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.penalty = checks.number("penalty", penalty)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        anchors, positives = chosen_pairs(pairs)
        logits = similarities(*chosen_vectors(pairs, anchors, positives))
        # The fused operation: on so few pairs, each further one costs as much as the loss.
        each, _ = tf.raw_ops.SoftmaxCrossEntropyWithLogits(
            features=logits, labels=tf.eye(tf.size(anchors), dtype=logits.dtype)
        )
        size = tf.size(pairs.labels)
        losses = average(tf.math.unsorted_segment_sum(each, anchors, size), tf.size(anchors))
        if self.penalty:
            losses += self.penalty * tf.reduce_sum(tf.square(pairs.anchors), axis=1)
        return losses

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "penalty": self.penalty}


def chosen_pairs(pairs: Pairs) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first anchor of each class that has a positive, and its first positive: two index vectors."""
    first = tf.argmax(tf.cast(pairs.positives, tf.int8), axis=1, output_type=tf.int32)
    size = tf.size(pairs.labels)
    found = tf.gather_nd(pairs.positives, tf.stack([tf.range(size), first], axis=1))
    anchors = first_of_each(pairs.labels, found)
    return anchors, tf.gather(first, anchors)


def chosen_vectors(pairs: Pairs, anchors: tf.Tensor, positives: tf.Tensor) -> list[tf.Tensor]:
    """Return the embeddings at two index vectors: of the anchors, and of the references."""
    # The products keep the gradient a dense tensor, as every other loss's is; a bare gather would make it sparse.
    if pairs.within:
        return list(tf.unstack(tf.gather(pairs.anchors * 1, tf.stack([anchors, positives]))))
    return [tf.gather(pairs.anchors * 1, anchors), tf.gather(pairs.references * 1, positives)]


def first_of_each(labels: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """Return where each label occurs first among the rows in a mask, int32; labels without such a row are left out."""
    size = tf.size(labels)
    # Of all labels, not of those in the mask: XLA pads what has no fixed length, and `unique` counts the padding.
    _, place = tf.unique(labels)
    rows = tf.math.unsorted_segment_min(tf.where(found, tf.range(size), size), place, size)
    return tf.boolean_mask(rows, rows < size)

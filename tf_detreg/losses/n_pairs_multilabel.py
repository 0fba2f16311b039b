"""N-pair loss for samples with several labels each."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import anchor_average
from tf_detreg.losses.distances import masked_logsumexp, masked_sum
from tf_detreg.losses.labels import check_multilabels
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import Pairs


@keras.saving.register_keras_serializable("tf_detreg")
class NPairsMultilabel(PairLoss):
    r"""N-pair loss for multi-label samples: cross-entropy towards the share of common labels.

    `L = mean_i - Σ_{j≠i} t_ij log( e^{f_i·f_j} / Σ_{k≠i} e^{f_i·f_k} )`,  `t_ij = |Y_i ∩ Y_j| / Σ_{k≠i} |Y_i ∩ Y_k|`

    Anchors that share no label with any other sample are left out. Embeddings are not normalized, as for `NPairs`.

    Other code: TensorFlow Addons' `NpairsMultilabelLoss` takes the matrix anchors · positives of two sets; this is
    `NPairsMultilabel().against(labels, anchors, labels, positives)`.

    Args:
        normalize: Scale the embeddings to length 1 first. Default False.
        miner: Must be `None`: mining is not defined for several labels.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Zeros and ones `(B, L)`, a column for each label.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong shape; eagerly also for other values than 0 and 1.

    Example:

    >>> loss = NPairsMultilabel()
    >>> round(float(loss([[1, 0], [1, 1], [0, 1]], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    0.9022

    Reference: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS 2016, and
    TensorFlow Addons 0.23.
    """

    def __init__(
        self,
        normalize: bool = False,
        *,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        if miner is not None:
            raise checks.invalid(
                "miner", "be None: positives and negatives are a matter of degree here", checks.shown(miner)
            )
        super().__init__(normalize=normalize, miner=miner, reduction=reduction, name=name)

    def check(self, labels: Any, embeddings: tf.Tensor) -> tf.Tensor:
        return check_multilabels(labels, embeddings)

    def build_pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        others = ~tf.eye(tf.shape(embeddings)[0], dtype=tf.bool)
        return self.overlapping(labels, embeddings, labels, embeddings, others, True)

    def build_memory_pairs(
        self,
        labels: tf.Tensor,
        embeddings: tf.Tensor,
        reference_labels: tf.Tensor,
        references: tf.Tensor,
        valid: tf.Tensor | None,
    ) -> Pairs:
        return self.overlapping(labels, embeddings, reference_labels, references, valid, False)

    def overlapping(
        self,
        labels: tf.Tensor,
        anchors: tf.Tensor,
        reference_labels: tf.Tensor,
        references: tf.Tensor,
        valid: tf.Tensor | None,
        within: bool,
    ) -> Pairs:
        """Return pairs of which those that share a label are positives, and all others negatives."""
        shared = tf.linalg.matmul(tf.cast(labels, tf.int32), tf.cast(reference_labels, tf.int32), transpose_b=True)
        valid = tf.ones_like(shared, tf.bool) if valid is None else valid
        positives, negatives = (shared > 0) & valid, (shared == 0) & valid
        return Pairs(labels, anchors, reference_labels, references, positives, negatives, None, within)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        logits = pairs.similarities
        shared = tf.matmul(
            tf.cast(pairs.labels, logits.dtype), tf.cast(pairs.reference_labels, logits.dtype), transpose_b=True
        )
        total = masked_sum(shared, pairs.positives)
        targets = tf.math.divide_no_nan(shared, total[:, None])
        normalizers = masked_logsumexp(logits, pairs.positives | pairs.negatives)
        return anchor_average(normalizers - masked_sum(targets * logits, pairs.positives), total > 0)

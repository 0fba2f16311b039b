"""What every pair loss shares: checked labels, precision, normalization, mining, and Keras' reductions."""

from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses import distances
from tf_detreg.losses.labels import as_embeddings, as_labels, check_labels, poisoned_by_labels
from tf_detreg.losses.options import described
from tf_detreg.losses.pairs import Pairs, as_masks, batch_pairs, memory_pairs
from tf_detreg.vectors import unit


class PairLoss(keras.losses.Loss):
    """A loss on the pairs of a batch, usable in any `compile(loss=…)`.

    `call` returns one value for each anchor, `(B,)`, whose mean is the loss: Keras' `reduction` and sample weights
    then do what they always do. It is computed in float32, or in float64 for float64 embeddings. A batch without any
    usable pair costs 0. A NaN or an infinity in the embeddings gives NaN. Under a distribution strategy, each replica
    of a plain Keras model compares its own rows alone; `training.MetricModel` compares those of all.

    Implementing a pair loss: subclass, write `per_anchor(pairs) -> (B,)`, extend `get_config`, and set
    `default_distance` if `pairs.matrix` is used (a loss without it works on `pairs.similarities` and takes no
    `distance`).

    Args:
        distance: `"euclidean"`, `"squared"` or `"cosine"`. Default None: the loss's own, see each loss.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs count: a `tf_detreg.miners` object, or any function `(labels, embeddings)` → two boolean
            masks or three index vectors. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`, not negative nor above 2147483647.
        embeddings: Floats `(B, dim)`.
        sample_weight: Optional, one weight for each anchor.

    Raises:
        ValueError: For labels of a wrong type or shape; eagerly also for those out of range (in a graph
            `tf.errors.InvalidArgumentError`).
    """

    default_distance: str | None = None

    def __init__(
        self,
        distance: str | None = None,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        if distance is not None and self.default_distance is None:
            raise checks.invalid(
                "distance", f"be None: {type(self).__name__} works on similarities", checks.shown(distance)
            )
        distance = distance or self.default_distance
        self.distance = distance and distances.check_distance(distance)
        self.normalize = normalize
        self.miner = miner

    def __call__(self, labels: Any, embeddings: Any, sample_weight: Any = None) -> tf.Tensor:
        # Keras' own __call__ casts the labels to floats, which hides wrong types and loses digits of large ids.
        labels = tf.cast(labels, tf.int32) if _is_rehearsal() else as_labels(labels)
        return _reduce(self.call(labels, embeddings), sample_weight, self.reduction)

    def call(self, labels: Any, embeddings: Any) -> tf.Tensor:
        """Return one value for each anchor, `(B,)`."""
        embeddings = self.prepare(embeddings)
        labels = self.check(labels, embeddings)
        return _poisoned(self.per_anchor(self.mined(self.build_pairs(labels, embeddings))), labels, embeddings)

    def against(
        self, labels: Any, embeddings: Any, reference_labels: Any, references: Any, valid: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return a value for each anchor, `(B,)`, compared with other vectors, such as a memory, instead of the batch.

        Args:
            labels: Integers `(B,)`.
            embeddings: `(B, dim)`, the anchors.
            reference_labels: Integers `(M,)`; not checked, so that empty places may be marked by -1.
            references: `(M, dim)`.
            valid: Boolean `(B, M)` or `(1, M)`: which pairs exist. Default None: all.
        """
        embeddings, references = self.prepare(embeddings), self.prepare(references)
        labels = self.check(labels, embeddings)
        reference_labels = tf.cast(tf.convert_to_tensor(reference_labels), labels.dtype)
        pairs = self.build_memory_pairs(labels, embeddings, reference_labels, references, valid)
        return _poisoned(self.per_anchor(self.mined(pairs)), labels, embeddings)

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        """Return the loss of each anchor, `(B,)`; written by each loss."""
        raise NotImplementedError(f"{type(self).__name__} must implement per_anchor(pairs).")

    def build_pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        """Return all pairs of a batch."""
        return batch_pairs(labels, embeddings, self.distance)

    def build_memory_pairs(
        self,
        labels: tf.Tensor,
        embeddings: tf.Tensor,
        reference_labels: tf.Tensor,
        references: tf.Tensor,
        valid: tf.Tensor | None,
    ) -> Pairs:
        """Return all pairs of a batch and other vectors."""
        return memory_pairs(labels, embeddings, reference_labels, references, valid, self.distance)

    def check(self, labels: Any, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the labels in the form that `per_anchor` needs."""
        return check_labels(labels, embeddings)

    def prepare(self, embeddings: Any) -> tf.Tensor:
        """Return embeddings in sufficient precision, of length 1 if asked for."""
        embeddings = as_embeddings(embeddings)
        if embeddings.dtype != tf.float64:
            embeddings = tf.cast(embeddings, tf.float32)
        return unit(embeddings) if self.normalize else embeddings

    def mine(self, pairs: Pairs) -> Any:
        """Return what the miner chooses: two masks or three index vectors."""
        if hasattr(self.miner, "select"):
            return self.miner.select(pairs)
        if not pairs.within:
            raise checks.invalid(
                "miner",
                "be a tf_detreg.miners object when a loss looks into a memory",
                checks.shown(self.miner),
                "A plain function of (labels, embeddings) sees only the batch.",
            )
        return self.miner(pairs.labels, tf.stop_gradient(pairs.anchors))

    def mined(self, pairs: Pairs) -> Pairs:
        """Return the pairs that the miner keeps."""
        if self.miner is None:
            return pairs
        return pairs.restricted(as_masks(self.mine(pairs), tf.shape(pairs.positives)))

    def __repr__(self) -> str:
        return described(self)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "normalize": self.normalize}
        if self.distance is not None:
            config["distance"] = self.distance
        config["miner"] = keras.saving.serialize_keras_object(self.miner) if self.miner is not None else None
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if isinstance(config.get("miner"), dict):
            config["miner"] = keras.saving.deserialize_keras_object(config["miner"])
        return cls(**config)


def _is_rehearsal() -> bool:
    """Return whether Keras runs the loss on the *mean* of several replicas' batches, for its shape, before training.

    The mean of labels is no label, and a float.
    """
    return not tf.executing_eagerly() and tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()


def _poisoned(values: tf.Tensor, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Return NaN everywhere if an embedding is not finite, which masks would hide, or a label is wrong."""
    fine = tf.reduce_all(tf.math.is_finite(embeddings))
    return poisoned_by_labels(tf.where(fine, values, float("nan")), labels)


def _reduce(values: tf.Tensor, sample_weight: Any, reduction: str | None) -> tf.Tensor:
    if sample_weight is not None:
        # One weight for each anchor, as a vector or a column, or one for all.
        sample_weight = tf.reshape(tf.cast(sample_weight, values.dtype), [-1])
        sample_weight = tf.broadcast_to(sample_weight, tf.shape(values))
        values = values * sample_weight
    if reduction in (None, "none"):
        return values
    total = tf.reduce_sum(values)
    if reduction == "sum":
        return total
    weighted = reduction == "mean_with_sample_weight" and sample_weight is not None
    count = tf.reduce_sum(sample_weight) if weighted else tf.cast(tf.size(values), values.dtype)
    mean = tf.math.divide_no_nan(total, count)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    # A share of the mean, as Keras' own losses give: the gradients of all replicas are added up.
    return mean if replicas == 1 else mean / replicas

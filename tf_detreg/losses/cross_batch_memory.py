"""Cross-batch memory: compare a batch with the embeddings of many earlier batches."""

from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.loss_layer import LossLayer
from tf_detreg.losses.margin import Margin
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.shapes import Shape


@keras.saving.register_keras_serializable("tf_detreg")
class CrossBatchMemory(LossLayer):
    r"""Cross-batch memory (XBM) around any pair loss.

    `L = 1/B Σ_i ℓ(x_i; {memory})`, the memory being the latest M embeddings, the batch's own included

    Each training call first writes the batch over the oldest entries, then compares each sample with every entry but
    itself. Entries carry no gradient. Outside training nothing is written and the batch is compared with itself.

    In the first `start` training calls, when embeddings still move fast, nothing is written either: the batch is
    compared with itself. `fill` writes given embeddings into the memory, so that it need not start empty.

    Paper settings: `Contrastive(power=1, negative_margin=0.5, distance="cosine", average="anchors")`, that is the sums
    over positives and negatives, both divided by B; `batch_weight=1.0`: the loss within the batch is added;
    `start=1000` (2,000 in their defaults); a memory of 55,000 for the 59,551 training images of SOP (8,192 in their
    defaults); batches of 16 classes × 4 images.
    Other code: The authors add the similarity of each negative above the margin without subtracting the margin; the
    difference is a constant without a gradient. They drop positives with `s >= 1 - 1e-5`, such as each sample's pair
    with itself. pytorch-metric-learning does not add the loss within the batch. Its `ContrastiveLoss` averages
    positives and negatives each by itself, as `Contrastive` does here by default: a gradient of another direction.

    Args:
        loss: A pair loss, or `Margin`.
        memory_size: M, at least the batch size. Default 1024.
        start: Training calls before the memory is written and used; until then the batch is compared with itself.
            Default 0.
        batch_weight: Weight of the loss within the batch. Default 0.0.
        name, dtype, trainable: As in `keras.layers.Layer`. Computation is in float32, or float64 if asked.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.
        training: `False` leaves the memory alone.

    Raises:
        ValueError: For labels of a wrong type, shape or range, a batch larger than the memory, or a loss that is no
            pair loss or not reduced to a mean.

    Example:

    >>> loss = CrossBatchMemory(Contrastive(), memory_size=4)
    >>> round(float(loss([0, 0], [[1.0, 0.0], [0.0, 1.0]], training=True)), 4)
    1.0
    >>> loss.memory_labels.numpy().tolist()
    [0, 0, -1, -1]

    Reference: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    def __init__(
        self,
        loss: PairLoss | Margin,
        memory_size: int = 1024,
        start: int = 0,
        batch_weight: float = 0.0,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if not isinstance(loss, PairLoss | Margin):
            raise ValueError(f"`loss` must be a pair loss of tf_detreg.losses; received {loss!r}.")
        if isinstance(loss, PairLoss) and loss.reduction in ("sum", "none", None):
            raise ValueError(
                f"`loss` must be reduced to a mean, as a memory's is; received reduction={loss.reduction!r}."
            )
        self.loss = loss
        self.memory_size = checks.integer("memory_size", memory_size, 1)
        self.start = checks.integer("start", start, 0)
        self.batch_weight = checks.number("batch_weight", batch_weight)

    def build(self, labels_shape: Shape, embeddings_shape: Shape) -> None:
        if embeddings_shape[-1] is None:
            raise ValueError(f"`embeddings` must have a static last dimension; received shape {embeddings_shape}.")
        if isinstance(self.loss, keras.layers.Layer) and not self.loss.built:
            self.loss.build(labels_shape, embeddings_shape)
        width = labels_shape[1:] if len(labels_shape) == 2 and labels_shape[1] != 1 else ()
        self.memory = self._state("memory", (self.memory_size, embeddings_shape[-1]), 0.0, self.precision)
        self.memory_labels = self._state("memory_labels", (self.memory_size, *width), -1, "int32")
        self.calls = self._state("calls", (), 0, "int32")
        self.cursor = self._state("cursor", (), 0, "int32")
        self.filled = self._state("filled", (), 0, "int32")
        self.built = True

    @property
    def miner(self) -> Any:
        """Return which pairs or triplets of batch and memory count."""
        return self.loss.miner

    def call(self, labels: tf.Tensor, embeddings: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        embeddings = tf.cast(embeddings, self.precision)
        labels = self.loss.check(labels, embeddings)  # before wrong ones reach the memory
        if training is False:
            return self._within(labels, embeddings)
        self._check_size(embeddings)
        self.calls.assign(self.calls.value + 1)
        return tf.cond(
            self.calls.value > self.start,
            lambda: self._remembered(labels, embeddings, self._write(labels, embeddings)),
            lambda: self._within(labels, embeddings),
        )

    def fill(self, labels: Any, embeddings: Any) -> None:
        """Write embeddings into the memory, over its oldest entries, as if they were earlier batches.

        Before training, for instance with the embeddings of the training images, `memory.fill(labels,
        embedder.predict(images))`, so that the first batch finds a full memory.

        Args:
            labels: Integers `(N,)` or `(N, 1)`.
            embeddings: Floats `(N, dim)`; of more than `memory_size` rows the last are kept.

        Raises:
            ValueError: For labels of a wrong type, shape or range, or embeddings that are not finite.

        Example:

        >>> loss = CrossBatchMemory(Contrastive(), memory_size=4)
        >>> loss.fill([0, 1, 2], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
        >>> loss.memory_labels.numpy().tolist()
        [0, 1, 2, -1]
        """
        embeddings = tf.cast(tf.convert_to_tensor(embeddings), self.precision)
        labels = self.loss.check(labels, embeddings)
        if not tf.reduce_all(tf.math.is_finite(embeddings)):
            raise ValueError("`embeddings` must be finite numbers; received NaN or infinite ones.")
        if not self.built:
            self.build(labels.shape, embeddings.shape)
        if embeddings.shape[1] != self.memory.shape[1]:
            raise ValueError(
                f"`embeddings` must have shape (N, {self.memory.shape[1]}), as the memory has; received "
                f"{tuple(embeddings.shape)}."
            )
        self._write(labels[-self.memory_size :], embeddings[-self.memory_size :])

    def _within(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the mean loss of the batch compared with itself."""
        return tf.cast(tf.reduce_mean(self.loss.call(labels, embeddings)), self.precision)

    def _check_size(self, embeddings: tf.Tensor) -> None:
        size, text = embeddings.shape[0], "`memory_size` must be at least the batch size; received"
        if size is None:
            tf.debugging.assert_less_equal(tf.shape(embeddings)[0], self.memory_size, f"{text} {self.memory_size}.")
        elif size > self.memory_size:
            raise ValueError(f"{text} {self.memory_size} for {size} samples.")

    def _write(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """Replace the oldest entries by the batch; return their slots, `(B,)`."""
        count = tf.shape(embeddings)[0]
        slots = (self.cursor.value + tf.range(count)) % self.memory_size
        fresh = tf.cast(tf.stop_gradient(embeddings), self.precision)
        places = slots[:, None]
        self.memory.assign(tf.tensor_scatter_nd_update(self.memory.value, places, fresh))
        known = tf.tensor_scatter_nd_update(self.memory_labels.value, places, tf.cast(labels, tf.int32))
        self.memory_labels.assign(known)
        self.cursor.assign((self.cursor.value + count) % self.memory_size)
        self.filled.assign(tf.minimum(self.filled.value + count, self.memory_size))
        return slots

    def _remembered(self, labels: tf.Tensor, embeddings: tf.Tensor, slots: tf.Tensor) -> tf.Tensor:
        places = tf.range(self.memory_size)[None, :]
        valid = (places < self.filled.value) & (places != slots[:, None])
        losses = self.loss.against(labels, embeddings, self.memory_labels.value, self.memory.value, valid)
        loss = tf.cast(tf.reduce_mean(losses), self.precision)
        if self.batch_weight:
            loss += self.batch_weight * self._within(labels, embeddings)
        return loss

    def _state(self, name: str, shape: tuple[int, ...], value: float, dtype: str) -> keras.Variable:
        start = keras.initializers.Constant(value)
        return self.add_weight(name=name, shape=shape, initializer=start, trainable=False, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "memory_size": self.memory_size,
            "start": self.start,
            "batch_weight": self.batch_weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})

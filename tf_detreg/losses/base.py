"""What every proxy loss shares: the proxies, the check of the labels, and numerically safe building blocks."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.labels import check_labels, poisoned_by_labels
from tf_detreg.losses.loss_layer import LossLayer
from tf_detreg.shapes import Shape
from tf_detreg.vectors import unit


def log1p_sum_exp(exponents: tf.Tensor, axis: int, offset: float = 0.0) -> tf.Tensor:
    """Return `log(1 + Σ exp(u + offset))` along an axis, exact for huge, tiny and `-inf` exponents."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no stubs
    def reduced(exponents: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        peak = tf.maximum(tf.reduce_max(exponents, axis=axis, keepdims=True), -offset)
        powers = tf.exp(exponents - peak)
        peak += offset
        total = tf.reduce_sum(powers, axis=axis, keepdims=True) + tf.math.expm1(-peak)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return powers * (tf.expand_dims(upstream, axis) / (1 + total))

        return tf.squeeze(peak + tf.math.log1p(total), axis), gradient

    return reduced(exponents)


@tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no stubs
def set_apart(similarities: tf.Tensor, own: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the entries at `own (B, m, 2)`, as `(B, m)`, and all similarities `(B, P)` with `-inf` in those places."""
    mine = tf.gather_nd(similarities, own)
    others = tf.tensor_scatter_nd_update(
        similarities, own, tf.fill(tf.shape(mine), tf.constant(float("-inf"), similarities.dtype))
    )

    def gradient(towards_mine: tf.Tensor, towards_others: tf.Tensor) -> tf.Tensor:
        return tf.tensor_scatter_nd_update(towards_others, own, towards_mine), None

    return (mine, others), gradient


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the mean over the batch of `-log softmax(logits)[label]`."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def at_label(labels: tf.Tensor) -> tf.Tensor:
    """Index pairs (row, label), `(B, 2)`."""
    return tf.stack([tf.range(tf.size(labels)), labels], axis=1)


class ProxyLoss(LossLayer):
    r"""A loss that owns learnable class representatives, the proxies.

    The loss is a layer: whoever trains with it (`training.MetricModel` does) adds its `trainable_variables` to the
    optimizer. Rows `c·m … c·m + m - 1` of `proxies` belong to class `c`, with `m = proxies_per_class`. Everything is
    computed in float32 (or float64, with `dtype="float64"`), also under mixed precision.

    Implementing a proxy loss: subclass, write `objective(labels, z, q)` with unit embeddings `z (B, dim)` and unit
    proxies `q (C·m, dim)`, and extend `get_config`.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m. Default 1.
        initializer: Of the proxies. Default None: normal with variance `2 / (C·m)` (Kaiming, fan-out), which is
            what the authors of Proxy-Anchor use. Only directions matter to the losses, but the length of a proxy sets
            how far an optimizer step turns it.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`, each in `0 .. C - 1`.
        embeddings: `(B, dim)`, any float type; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range (in a graph a wrong range raises
            `tf.errors.InvalidArgumentError`).
    """

    smallest_num_classes = 1

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 1,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.num_classes = checks.integer("num_classes", num_classes, self.smallest_num_classes)
        self.dim = dim
        self.proxies_per_class = checks.integer("proxies_per_class", proxies_per_class, 1)
        self.initializer = keras.initializers.get(initializer)

    def build(self, labels_shape: Shape | None = None, embeddings_shape: Shape | None = None) -> None:
        given = embeddings_shape[-1] if embeddings_shape is not None else self.dim
        if given is None or (self.dim is not None and given != self.dim):
            raise ValueError(
                f"`embeddings` must have a static size of dim={self.dim}; received shape {embeddings_shape}."
            )
        count = self.num_classes * self.proxies_per_class
        fallback = keras.initializers.RandomNormal(stddev=(2.0 / count) ** 0.5)
        self.proxies = self.add_weight(name="proxies", shape=(count, given), initializer=self.initializer or fallback)
        self.built = True

    @property
    def proxy_labels(self) -> tf.Tensor:
        """Return the class of each proxy, int32 `(C·m,)`."""
        return tf.repeat(tf.range(self.num_classes), self.proxies_per_class)

    def call(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        embeddings = tf.cast(embeddings, self.precision)
        labels = check_labels(labels, embeddings, self.num_classes)
        loss = self.objective(labels, unit(embeddings), unit(tf.cast(self.proxies, self.precision)))
        return poisoned_by_labels(loss, labels)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """Return the scalar loss of checked labels `(B,)`, unit embeddings `(B, dim)` and unit proxies `(C·m, dim)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement objective(labels, z, q).")

    def own_proxies(self, labels: tf.Tensor) -> tf.Tensor:
        """Return where each sample's own proxies stand: index pairs (row, proxy), `(B, m, 2)`."""
        columns = labels[:, None] * self.proxies_per_class + tf.range(self.proxies_per_class)
        rows = tf.broadcast_to(tf.range(tf.shape(labels)[0])[:, None], tf.shape(columns))
        return tf.stack([rows, columns], axis=-1)

    def class_similarities(self, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """Return the cosine similarity `(B, C)` of each sample to the nearest proxy of each class."""
        similarities = tf.matmul(z, q, transpose_b=True)
        if self.proxies_per_class == 1:
            return similarities
        return tf.reduce_max(tf.reshape(similarities, (-1, self.num_classes, self.proxies_per_class)), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "dim": self.dim,
            "proxies_per_class": self.proxies_per_class,
            "initializer": keras.initializers.serialize(self.initializer) if self.initializer else None,
        }

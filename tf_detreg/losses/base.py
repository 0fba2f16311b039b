"""What every proxy loss shares: the proxies, the check of the labels, and a numerically safe alphabet."""

import keras
import tensorflow as tf


def unit(vectors: tf.Tensor) -> tf.Tensor:
    """Vectors of length 1 along the last axis; a zero vector stays zero and keeps a finite gradient."""
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    return vectors * tf.math.rsqrt(tf.maximum(squares, 1e-12))


def log1p_sum_exp(exponents: tf.Tensor, axis: int) -> tf.Tensor:
    """`log(1 + Σ exp(u))` along an axis, exact for huge, tiny and `-inf` exponents."""
    peak = tf.stop_gradient(tf.maximum(tf.reduce_max(exponents, axis=axis, keepdims=True), 0))
    total = tf.reduce_sum(tf.exp(exponents - peak), axis=axis)
    peak = tf.squeeze(peak, axis)
    return peak + tf.math.log1p(total + tf.math.expm1(-peak))


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean over the batch of `-log softmax(logits)[label]`."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def at_label(labels: tf.Tensor) -> tf.Tensor:
    """Index pairs (row, label), `(B, 2)`."""
    return tf.stack([tf.range(tf.size(labels)), labels], axis=1)


def check_labels(labels, embeddings: tf.Tensor, num_classes: int | None = None) -> tf.Tensor:
    """Labels as int32 `(B,)`, after making sure that they are what a loss can use.

    A wrong type or shape raises `ValueError` at once. A value outside `0 .. num_classes - 1` raises `ValueError` when
    run eagerly and `tf.errors.InvalidArgumentError` with the same text from within a graph, such as `fit`.

    Args:
        labels: integers, `(B,)` or `(B, 1)`.
        embeddings: `(B, dim)`.
        num_classes: number of known classes; `None` accepts every integer.

    Raises:
        ValueError: if labels are not integers, or shapes do not fit, or (eagerly) a value is out of range.
    """
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise ValueError(
            f"labels must be integers (class numbers), received dtype {labels.dtype.name}. "
            "Convert them with e.g. labels.astype('int32'); one-hot labels with argmax(axis=-1)."
        )
    if embeddings.shape.rank != 2:
        raise ValueError(f"embeddings must have shape (batch, dim), received {tuple(embeddings.shape)}.")
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, 1)
    if labels.shape.rank != 1 or not labels.shape[:1].is_compatible_with(embeddings.shape[:1]):
        raise ValueError(
            "labels must have shape (batch,) or (batch, 1), one class number for each embedding; "
            f"received labels {tuple(labels.shape)} with embeddings {tuple(embeddings.shape)}."
        )
    return labels_in_range(labels, num_classes)


def labels_in_range(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    """The integer labels as int32, or an error that shows the largest and smallest of them."""
    if num_classes is None:
        return tf.cast(labels, tf.int32)
    wide = tf.cast(labels, tf.int64)
    fine = tf.reduce_all((wide >= 0) & (wide < num_classes))
    text = (
        f"labels must lie in 0 .. {num_classes - 1} (num_classes={num_classes}). Number the classes from 0 without "
        "gaps, or give the loss a larger num_classes. Smallest and largest label received:"
    )
    if tf.executing_eagerly():
        if not fine:
            raise ValueError(f"{text} {int(tf.reduce_min(wide))}, {int(tf.reduce_max(wide))}.")
        return tf.cast(labels, tf.int32)
    with tf.control_dependencies([tf.debugging.Assert(fine, [text, tf.reduce_min(wide), tf.reduce_max(wide)])]):
        return tf.cast(labels, tf.int32)


class ProxyLoss(keras.layers.Layer):
    r"""A loss that owns learnable class representatives, the proxies.

    The loss is a layer: whoever trains with it (`training.MetricModel` does) adds its `trainable_variables` to the
    optimizer. Rows `c·m … c·m + m - 1` of `proxies` belong to class `c`, with `m = proxies_per_class`. Everything is
    computed in float32 (or float64, with `dtype="float64"`), also under mixed precision.

    Implementing a proxy loss: subclass, write `objective(labels, z, q)` with unit embeddings `z (B, dim)` and unit
    proxies `q (C·m, dim)`, and extend `get_config`.

    Args:
        num_classes: number of classes C.
        dim: size of an embedding. Defaults to `None`: taken from the first call.
        proxies_per_class: m. Defaults to `1`.
        initializer: of the proxies. Defaults to `None`: normal with variance `2 / (C·m)` (Kaiming, fan-out), which is
            what the authors of Proxy-Anchor use. Only directions matter to the losses, but the length of a proxy sets
            how far an optimizer step turns it.

    Call arguments:
        labels: integers `(B,)` or `(B, 1)`, each in `0 .. C - 1`.
        embeddings: `(B, dim)`, any float type; normalised inside.

    Raises:
        ValueError: for labels of a wrong type, shape or range (in a graph a wrong range raises
            `tf.errors.InvalidArgumentError`).
    """

    smallest_num_classes = 1

    def __init__(
        self, num_classes: int, dim: int | None = None, proxies_per_class: int = 1, initializer=None, **kwargs
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if num_classes < self.smallest_num_classes:
            raise ValueError(f"num_classes must be at least {self.smallest_num_classes}, received {num_classes}.")
        if proxies_per_class < 1:
            raise ValueError(f"proxies_per_class must be at least 1, received {proxies_per_class}.")
        self.num_classes = int(num_classes)
        self.dim = dim
        self.proxies_per_class = int(proxies_per_class)
        self.initializer = keras.initializers.get(initializer)

    def build(self, labels_shape=None, embeddings_shape=None):
        given = embeddings_shape[-1] if embeddings_shape is not None else self.dim
        if given is None or (self.dim is not None and given != self.dim):
            raise ValueError(
                f"embeddings must have a static size of dim={self.dim}, received shape {embeddings_shape}."
            )
        count = self.num_classes * self.proxies_per_class
        fallback = keras.initializers.RandomNormal(stddev=(2.0 / count) ** 0.5)
        self.proxies = self.add_weight(name="proxies", shape=(count, given), initializer=self.initializer or fallback)
        self.built = True

    @property
    def proxy_labels(self) -> tf.Tensor:
        """The class of each proxy, int32 `(C·m,)`."""
        return tf.repeat(tf.range(self.num_classes), self.proxies_per_class)

    def call(self, labels, embeddings):
        embeddings = tf.cast(embeddings, self.compute_dtype)
        labels = check_labels(labels, embeddings, self.num_classes)
        return self.objective(labels, unit(embeddings), unit(tf.convert_to_tensor(self.proxies)))

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """The scalar loss from checked labels `(B,)`, unit embeddings `(B, dim)` and unit proxies `(C·m, dim)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement objective(labels, z, q).")

    def own_proxies(self, labels: tf.Tensor) -> tf.Tensor:
        """Where each sample's own proxies stand: index pairs (row, proxy), `(B, m, 2)`."""
        columns = labels[:, None] * self.proxies_per_class + tf.range(self.proxies_per_class)
        rows = tf.broadcast_to(tf.range(tf.shape(labels)[0])[:, None], tf.shape(columns))
        return tf.stack([rows, columns], axis=-1)

    def class_similarities(self, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """Cosine similarity `(B, C)` of each sample to the nearest proxy of each class."""
        similarities = tf.matmul(z, q, transpose_b=True)
        if self.proxies_per_class == 1:
            return similarities
        return tf.reduce_max(tf.reshape(similarities, (-1, self.num_classes, self.proxies_per_class)), axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "dim": self.dim,
            "proxies_per_class": self.proxies_per_class,
            "initializer": keras.initializers.serialize(self.initializer) if self.initializer else None,
        }

"""What the center-separation regularizers share: which centers, which pairs of them, and means over those pairs."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.regularizers.base import Context, Regularizer, some_rows
from tf_detreg.vectors import unit


def centers(context: Context, by: str, dtype: str = "float32") -> tuple[tf.Tensor, tf.Tensor]:
    """Return unit centers `(C, dim)` in a precision and their classes `(C,)`.

    The proxies where there are any, else the mean embedding of each class in the batch.
    """
    if context.proxies is not None:
        proxies = tf.cast(context.proxies, dtype)
        labels = tf.range(tf.shape(proxies)[0]) if context.proxy_labels is None else context.proxy_labels
        return unit(proxies), tf.convert_to_tensor(labels)
    labels, embeddings = context.need("labels", "embeddings", by=by)
    classes, slot = tf.unique(tf.reshape(labels, [-1]))
    return unit(tf.math.unsorted_segment_sum(tf.cast(embeddings, dtype), slot, tf.size(classes))), classes


class CenterSeparation(Regularizer):
    """Base of the regularizers that spread class centers over the sphere.

    Pairs are of centers of different classes: the several proxies of one class are free to meet. With more than
    `max_rows` centers, each step takes that many at random and pairs them with all: an unbiased mean over pairs, and a
    `(max_rows, C)` matrix instead of `(C, C)`.

    Implementing one: write `energy(cosines, pairs)` from cosines `(R, C)` and a boolean mask of the pairs that count.

    Args:
        weight: Factor in the objective. Default 1.0.
        max_rows: Default 512.
    """

    def __init__(
        self,
        weight: float = 1.0,
        max_rows: int = 512,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, name=name, dtype=dtype, trainable=trainable)
        self.max_rows = checks.integer("max_rows", max_rows, 1)
        self.draws = keras.random.SeedGenerator(0)  # a random seed would shift those of all that is made later

    def penalty(self, context: Context) -> tf.Tensor:
        points, classes = centers(context, by=self.name, dtype=self.compute_dtype)
        rows = some_rows(tf.shape(points)[0], self.max_rows, self.draws)
        cosines = tf.matmul(tf.gather(points, rows), points, transpose_b=True)
        pairs = tf.gather(classes, rows)[:, None] != classes[None, :]
        return tf.cond(tf.reduce_any(pairs), lambda: self.energy(cosines, pairs), lambda: 0.0 * tf.reduce_sum(cosines))

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        """Return the scalar to be minimized; at least one pair counts."""
        raise NotImplementedError(f"{type(self).__name__} must implement energy(cosines, pairs).")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_rows": self.max_rows}


def mean_over(values: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
    """Return the mean of the values whose pair counts."""
    count = tf.math.count_nonzero(pairs, dtype=values.dtype)
    return tf.reduce_sum(tf.where(pairs, values, 0)) / count


def log_mean_exp(exponents: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
    """Return `log(mean over pairs of e^u)`, safe for large exponents."""
    count = tf.math.count_nonzero(pairs, dtype=exponents.dtype)
    return tf.reduce_logsumexp(tf.where(pairs, exponents, float("-inf"))) - tf.math.log(count)

"""Feature interpolation: points between a sample and its nearest positives, where the map should be smooth too."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.shapes import Shape


@keras.saving.register_keras_serializable("tf_detreg")
class Interpolation(keras.layers.Layer):
    r"""`z̃_i = z_i + ε·(z_j − z_i)`, with `z_j` one of the nearest neighbors of `z_i` in its own class and batch.

    The mixed points enter the regularity R of a head and never its metric loss. A sample without a positive in the
    batch stays as it is. The paper writes the difference the other way round, but says that the point lies *between*
    the two; so does ours.

    Args:
        epsilon: ε in (0, 1]: 0 is the sample, 1 its neighbor. Default 0.4, the best of the paper's grid.
        neighbors: How many nearest positives `z_j` is drawn from. Default 1: always the nearest.
        random: If true, ε is drawn for each sample from (0, `epsilon`]. Default false.
        seed: Of the draws.

    Call arguments:
        z: `(B, d)`, the samples.
        labels: Integers `(B,)`.
        pool: `(N, d)`, where positives are looked for. Default: `z`.
        pool_labels: Integers `(N,)`, of the pool.
        offset: Row of the pool in which the first sample stands, so that no sample is its own positive. Default 0.

    Returns:
        `(B, d)`, the mixed points.

    Raises:
        ValueError: If `epsilon` is outside (0, 1] or `neighbors` below 1.

    Example:
        >>> z = tf.constant([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
        >>> Interpolation(epsilon=0.25)(z, tf.constant([7, 7, 8])).numpy().tolist()
        [[0.25, 0.0], [0.75, 0.0], [9.0, 9.0]]

    Reference:
        "Determinant Regularization for Deep Metric Learning" (ICLR 2023 submission), sample augmentation.
    """

    def __init__(
        self,
        epsilon: float = 0.4,
        neighbors: int = 1,
        random: bool = False,
        seed: int | None = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        # In the precision of z, which is the head's: float64 stays, and no policy makes it half.
        super().__init__(autocast=False, name=name, dtype=dtype, trainable=trainable)
        self.epsilon = float(checks.within("epsilon", epsilon, 0, 1, "(]"))
        self.neighbors = checks.integer("neighbors", neighbors, 1)
        self.random, self.seed = bool(random), seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(
        self,
        z: tf.Tensor,
        labels: tf.Tensor,
        pool: tf.Tensor | None = None,
        pool_labels: tf.Tensor | None = None,
        offset: Any = 0,
    ) -> tf.Tensor:
        pool, pool_labels = (z, labels) if pool is None else (pool, pool_labels)
        positive, has_positive = self._positives(z, labels, pool, pool_labels, offset)
        step = self.epsilon * tf.ones_like(z[:, :1])
        if self.random:
            # 1 − U[0, 1) lies in (0, 1].
            step *= 1.0 - keras.random.uniform(tf.shape(step), dtype=z.dtype, seed=self.seed_generator)
        return tf.where(has_positive[:, None], z + step * (tf.gather(pool, positive) - z), z)

    def _positives(
        self, z: tf.Tensor, labels: tf.Tensor, pool: tf.Tensor, pool_labels: tf.Tensor, offset: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the row of each sample's positive in the pool, and whether there is one, without gradients."""
        z, pool = tf.stop_gradient(z), tf.stop_gradient(pool)
        own = (tf.range(tf.shape(z)[0]) + offset)[:, None] == tf.range(tf.shape(pool)[0])[None, :]
        positives = (labels[:, None] == pool_labels[None, :]) & ~own
        # |a − b|² less |a|², which orders the pool alike for each row.
        distance = tf.reduce_sum(pool**2, axis=1)[None, :] - 2.0 * tf.matmul(z, pool, transpose_b=True)
        distance = tf.where(positives, distance, tf.fill(tf.shape(distance), tf.constant(float("inf"), distance.dtype)))
        count = tf.reduce_sum(tf.cast(positives, tf.int32), axis=1)
        if self.neighbors == 1:
            return tf.argmin(distance, axis=1, output_type=tf.int32), count > 0
        order = tf.argsort(distance, axis=1)
        choices = tf.clip_by_value(count, 1, self.neighbors)
        draw = keras.random.uniform(tf.shape(choices), dtype=z.dtype, seed=self.seed_generator)
        pick = tf.minimum(tf.cast(draw * tf.cast(choices, z.dtype), tf.int32), choices - 1)
        return tf.gather(order, pick, batch_dims=1), count > 0

    def compute_output_shape(self, z_shape: Shape, *args: Any, **kwargs: Any) -> Shape:
        return z_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "neighbors": self.neighbors,
            "random": self.random,
            "seed": self.seed,
        }


def as_interpolation(given: Any) -> Interpolation | None:
    """Return a layer that interpolates, from one or from its epsilon; None for 0."""
    if isinstance(given, Interpolation) or not given:
        return given or None
    return Interpolation(epsilon=given)

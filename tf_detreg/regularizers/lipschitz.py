"""The Jacobian-vector penalty: what the determinant cannot see."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.regularizers.base import Context, Regularizer

PARTS = ("head", "backbone", "embedder")


@keras.saving.register_keras_serializable("tf_detreg")
class Lipschitz(Regularizer):
    """The mean squared stretch of a map in random directions.

        penalty = (1/n) · E_x E_v ‖J(x)·v‖² = (1/n) · E_x ‖J(x)‖_F²,      v ~ N(0, I),  n outputs

    The determinant multiplies all stretches, so a map may stretch one direction a thousandfold and shrink another as
    much, and an additive coupling may shear as steeply as it likes: both have determinant 1. This penalty adds the
    squares of the stretches, and sees both. One direction is drawn per sample and step; the product `J·v` costs about
    one more forward pass, and no Jacobian is formed.

    Args:
        weight: Factor of the penalty in the objective. Default 1.
        part: Which map. `"head"` (default): the flow, `z → y` before normalization; 1 for an identity, and without a
            gradient for a linear head, whose flow is empty. `"backbone"`: images → features. `"embedder"`: images →
            unit embeddings.
        seed: Of the directions.

    Reference:
        Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989; Hoffman, Roberts, Yaida,
        "Robust Learning with Jacobian Regularization", 2019, https://arxiv.org/abs/1908.02729

    Example:
        >>> from tf_detreg import heads
        >>> head = heads.Linear(4)  # An empty flow: the identity.
        >>> value = Lipschitz(seed=0).penalty(Context(z=tf.ones((4096, 4)), head=head))
        >>> bool(abs(value - 1.0) < 0.1)
        True
    """

    def __init__(
        self,
        weight: float = 1.0,
        part: str = "head",
        seed: int | None = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight=weight, name=name, dtype=dtype, trainable=trainable)
        self.part = checks.choice("part", part, PARTS)
        self.seed = seed
        self.directions = keras.random.SeedGenerator(seed)

    def penalty(self, context: Context) -> tf.Tensor:
        function, x = self._map(context)
        x = x if x.dtype.is_floating else tf.cast(x, self.compute_dtype)  # whole pixel values have no derivative
        direction = keras.random.normal(tf.shape(x), dtype=x.dtype, seed=self.directions)
        with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
            y = function(x)
        stretch = accumulator.jvp(y, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.reduce_mean(tf.square(tf.cast(stretch, self.compute_dtype)))

    def _map(self, context: Context) -> tuple[Callable[[tf.Tensor], tf.Tensor], tf.Tensor]:
        """Return the map and the point at which it is measured, in inference mode."""
        name = type(self).__name__
        if self.part == "head":
            head, z = context.need("head", "z", by=name)
            return lambda z: head.flow(z, training=False)[0], tf.convert_to_tensor(z)
        backbone, images = context.need("backbone", "images", by=name)
        if self.part == "backbone":
            return lambda x: backbone(x, training=False), tf.convert_to_tensor(images)
        (head,) = context.need("head", by=name)
        return lambda x: head(backbone(x, training=False), training=False), tf.convert_to_tensor(images)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "part": self.part, "seed": self.seed}

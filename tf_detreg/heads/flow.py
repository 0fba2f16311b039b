"""What invertible heads add to a head: log-scales, the regularity R and its penalty, and an inverse."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks, extras
from tf_detreg.heads.base import Head
from tf_detreg.heads.features import check_built, check_finite
from tf_detreg.heads.measures import check_measure, regularity


@keras.saving.register_keras_serializable("tf_detreg")
class FlowHead(Head):
    """Features in, unit-length embeddings out, through an invertible map `g` whose Jacobian can be read off.

        x  --dropout, dense-->  --connection-->  z  --g = g_T ∘ … ∘ g_1-->  y  --L2-->  embedding

    Every `g_t` is triangular (up to a fixed order of the coordinates), so its Jacobian determinant is the product of
    its diagonal `exp(s_t)`. One pass yields `y` *and* all `s_t`; the regularity `R` is a sum over them
    (`tf_detreg.heads.measures`). With `penalty=λ` a training call adds `λ·R` to the layer's losses, so that plain
    `model.fit` minimizes `loss + λ·R`. A negative λ maximizes R: that is the rival of a `Dueling` pair.

    **Writing a new flow** takes two methods:

    - `build_flow()` creates and builds the Keras sublayers or weights, for width `self.dim`;
    - `factors(record, training)` returns the maps `g_1, …, g_T` as *fresh* TFP bijectors, and calls `record(s_t)` for
      each triangular factor as it is applied.

    and one row in `tests/heads/table.py`, which subjects it to every test that the others pass.

    Numbers: a head computes in float32 (or float64) even under a mixed-precision policy, because float16 loses the
    inverse. The default connection scales `z` to root mean square 1, which changes no direction (an identity flow
    then returns just the projected feature) and keeps the flow's input in the range where its inverse is exact.

    Args:
        dim: `d`, width of the flow and of the embedding, 2 or more.
        penalty: λ. Default 0: R is not added.
        measure: `"isometric"` (default), `"shifted"` (the paper's) or `"log_det"`.
        projection: `"auto"` (default): a dense layer with bias where the feature width differs from `dim`;
            `"always"`; `"never"`.
        dropout: Rate on the incoming features, while training. Default 0.
        connection: What stands between projection and flow: `"rms"` (default), or any Keras activation by name,
            `"linear"` for nothing.
        dtype: float32, or float64 if asked; half and mixed policies become float32. Default: Keras' policy.
        name, trainable: As in `keras.layers.Layer`.

    Call arguments:
        features: `(B, F)`, F static.
        training: Whether dropout acts and the penalty is added.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: For arguments out of range, inputs that are not `(B, F)` and, in eager calls, features that are
            NaN, infinite or beyond 1e16.

    Reference:
        "Determinant Regularization for Deep Metric Learning" (ICLR 2023 submission); Papamakarios et al., "Normalizing
        Flows for Probabilistic Modeling and Inference", 2021, https://arxiv.org/abs/1912.02762
    """

    def __init__(
        self,
        dim: int,
        penalty: float = 0.0,
        measure: str = "isometric",
        projection: str = "auto",
        dropout: float = 0.0,
        connection: str = "rms",
        dtype: Any = None,
        *,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(dim, projection, dropout, connection, dtype, name=name, trainable=trainable)
        self.penalty = checks.number("penalty", penalty)
        self.measure = check_measure(measure)

    # What a subclass states.

    def build_flow(self) -> None:
        """Create and build the flow's Keras sublayers and weights."""

    def factors(self, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list[Any]:
        """Return fresh TFP bijectors, first applied first; each triangular factor calls `record` when it is applied.

        Args:
            record: Takes the log-diagonal, `(B, n)` or `(n,)`, of a factor's Jacobian.
            training: Whether dropout acts inside.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement factors(record, training), or flow(z, training)."
        )

    # What it gets.

    def build_transform(self) -> None:
        """Create and build the flow."""
        with extras.needed(f"The head {type(self).__name__}"):
            import tensorflow_probability.python.bijectors  # noqa: F401
        self.build_flow()

    def flow(self, z: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return `y = g(z)` and the log-scales of every triangular factor, from one pass.

        Args:
            z: `(B, dim)`, as `project` returns it.
            training: Whether dropout acts inside the flow.

        Returns:
            `y` of shape `(B, dim)`, not normalized, and a list of `(B, n)` or `(n,)` tensors.
        """
        log_scales: list[tf.Tensor] = []
        y = z
        for factor in self.factors(log_scales.append, training):
            y = factor.forward(y)
        return y, log_scales

    def regularity(self, log_scales: list[tf.Tensor], measure: str | None = None) -> tf.Tensor:
        """Return `R` of the log-scales that `flow` returned, averaged over the batch.

        Args:
            log_scales: What `flow` returned.
            measure: Default: the head's.
        """
        return regularity(log_scales, self.dim, measure or self.measure)

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the embeddings of features; while training, add the penalty to the losses."""
        check_finite(features, self.name)
        y, log_scales = self.flow(self.project(features, training), training)
        if training and self.penalty:
            self.add_loss(self.penalty * self.regularity(log_scales))
        return self.normalize(y)

    def bijector(self) -> Any:
        """Return a fresh `tfp.bijectors.Bijector` of the flow, `z → y`, on the current weights, in inference mode.

        Use it and drop it: TFP bijectors cache results, so one that outlives a weight update answers from the past.
        """
        from tensorflow_probability import bijectors as tfb

        check_built(self)
        return tfb.Chain(self.factors(_ignore, training=False)[::-1])

    def inverse(self, y: tf.Tensor) -> tf.Tensor:
        """Return `z = g⁻¹(y)`, of outputs *before* L2 normalization, as `flow` returns them; `(B, dim)`."""
        y = tf.cast(tf.convert_to_tensor(y), self.compute_dtype)
        if y.shape.rank != 2 or y.shape[-1] != self.dim:
            raise ValueError(
                f"`y` must have shape (batch, dim={self.dim}), as flow returns it; received {tuple(y.shape)}."
            )
        # A new tensor, or TFP would return the input that it remembers for this very y.
        return self.bijector().inverse(tf.identity(y))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "penalty": self.penalty, "measure": self.measure}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FlowHead":
        """Return a head of a configuration."""
        return cls(**config)


def _ignore(log_scale: tf.Tensor) -> None:
    """Ignore a log-scale: the `record` of a pass that only wants the output."""

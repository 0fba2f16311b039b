"""The one contract that every embedding head keeps."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tf_detreg import weight_groups
from tf_detreg.heads.checks import (
    check_built,
    check_choice,
    check_finite,
    check_integer,
    check_number,
    check_rate,
    check_width,
)
from tf_detreg.heads.measures import check_measure, regularity
from tf_detreg.vectors import unit

PROJECTIONS = ("auto", "always", "never")


@keras.saving.register_keras_serializable("tf_detreg")
class FlowHead(keras.layers.Layer):
    """Features in, unit-length embeddings out, through an invertible map `g` whose Jacobian can be read off.

        x  --dropout, dense-->  --connection-->  z  --g = g_T ∘ … ∘ g_1-->  y  --L2-->  embedding

    Every `g_t` is triangular (up to a fixed order of the coordinates), so its Jacobian determinant is the product of
    its diagonal `exp(s_t)`. One pass yields `y` *and* all `s_t`; the regularity `R` is a sum over them
    (`tf_detreg.heads.measures`). With `penalty=λ` a training call adds `λ·R` to the layer's losses, so that plain
    `model.fit` minimises `loss + λ·R`. A negative λ maximises R: that is the rival of a `Dueling` pair.

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
        **kwargs: What every Keras layer takes.

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
        dim,
        penalty=0.0,
        measure="isometric",
        projection="auto",
        dropout=0.0,
        connection="rms",
        dtype=None,
        **kwargs,
    ):
        super().__init__(dtype=_full_precision(dtype), **kwargs)
        weight_groups.register(self)
        self.dim = check_integer("dim", dim, 2)
        self.penalty = check_number("penalty", penalty)
        self.measure = check_measure(measure)
        self.projection = check_choice("projection", projection, PROJECTIONS)
        self.dropout = check_rate("dropout", dropout)
        self.connection = connection
        self._connect = _rms if connection == "rms" else keras.activations.get(connection)
        self.input_dropout = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy) if self.dropout else None
        self.dense = None

    # What a subclass states.

    def build_flow(self) -> None:
        """Creates and builds the flow's Keras sublayers and weights."""

    def factors(self, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list:
        """Fresh TFP bijectors, first applied first; each triangular factor calls `record(log_diagonal)` when applied.

        Args:
            record: Takes the log-diagonal, `(B, n)` or `(n,)`, of a factor's Jacobian.
            training: Whether dropout acts inside.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement factors(record, training), or flow(z, training)."
        )

    # What it gets.

    def build(self, input_shape):
        width = check_width(input_shape, self.name)
        if self.projection == "never" and width != self.dim:
            raise ValueError(
                f'projection="never" needs features of width dim={self.dim}, received inputs of shape '
                f'{tuple(input_shape)}. Use projection="auto".'
            )
        if self.projection == "always" or width != self.dim:
            self.dense = keras.layers.Dense(self.dim, name="projection", dtype=self.dtype_policy)
            self.dense.build((None, width))
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: width})
        self.build_flow()

    def project(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """`z`: features through dropout, projection and connection. `(B, F)` → `(B, dim)`."""
        check_built(self)
        z = keras.ops.cast(features, self.compute_dtype)
        if self.input_dropout is not None:
            z = self.input_dropout(z, training=training)
        if self.dense is not None:
            z = self.dense(z)
        return self._connect(z)

    def flow(self, z: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """`y = g(z)` and the log-scales of every triangular factor, from one pass.

        Args:
            z: `(B, dim)`, as `project` returns it.
            training: Whether dropout acts inside the flow.

        Returns:
            `y` of shape `(B, dim)`, not normalised, and a list of `(B, n)` or `(n,)` tensors.
        """
        log_scales = []
        y = z
        for factor in self.factors(log_scales.append, training):
            y = factor.forward(y)
        return y, log_scales

    def regularity(self, log_scales: list[tf.Tensor], measure: str | None = None) -> tf.Tensor:
        """`R` of the log-scales that `flow` returned, averaged over the batch; `measure` defaults to the head's own."""
        return regularity(log_scales, self.dim, measure or self.measure)

    def normalize(self, y: tf.Tensor) -> tf.Tensor:
        """Rows of `y` scaled to length 1; a zero row stays zero."""
        return unit(y)

    def call(self, features, training=None):
        check_finite(features, self.name)
        y, log_scales = self.flow(self.project(features, training), training)
        if training and self.penalty:
            self.add_loss(self.penalty * self.regularity(log_scales))
        return self.normalize(y)

    def bijector(self):
        """A fresh `tfp.bijectors.Bijector` of the flow, `z → y`, on the current weights, in inference mode.

        Use it and drop it: TFP bijectors cache results, so one that outlives a weight update answers from the past.
        """
        from tensorflow_probability import bijectors as tfb

        check_built(self)
        return tfb.Chain(self.factors(_ignore, training=False)[::-1])

    def inverse(self, y: tf.Tensor) -> tf.Tensor:
        """`z = g⁻¹(y)`, of outputs *before* L2 normalisation, as `flow` returns them. `(B, dim)` → `(B, dim)`."""
        y = tf.cast(tf.convert_to_tensor(y), self.compute_dtype)
        if y.shape.rank != 2 or y.shape[-1] != self.dim:
            raise ValueError(
                f"y must have shape (batch, dim={self.dim}), as flow returns it, received {tuple(y.shape)}."
            )
        # A new tensor, or TFP would return the input that it remembers for this very y.
        return self.bijector().inverse(tf.identity(y))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.dim)

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "penalty": self.penalty,
            "measure": self.measure,
            "projection": self.projection,
            "dropout": self.dropout,
            "connection": self.connection,
        }


def _full_precision(dtype) -> keras.DTypePolicy:
    """The float32 policy in place of any half or mixed one; float64 stays."""
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    return policy if policy.name in ("float32", "float64") else keras.DTypePolicy("float32")


def _rms(z: tf.Tensor) -> tf.Tensor:
    """`z / sqrt(mean(z²))`, row by row: the same direction, root mean square 1."""
    return z * tf.math.rsqrt(tf.reduce_mean(tf.square(z), axis=-1, keepdims=True) + 1e-6)


def _ignore(log_scale: tf.Tensor) -> None:
    """The `record` of a pass that only wants the output."""

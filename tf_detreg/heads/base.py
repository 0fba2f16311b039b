"""The contract that every embedding head keeps."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks, deprecated, weight_groups
from tf_detreg.heads.features import check_built, check_finite, check_width
from tf_detreg.shapes import Shape
from tf_detreg.vectors import unit

PROJECTIONS = ("auto", "always", "never")
ONLY_FOR_FLOWS = ("penalty", "measure")
"""Arguments that heads without a Jacobian took until version 0.1.0, without any effect."""

without_penalty = deprecated.ignored_arguments(*ONLY_FOR_FLOWS, because="which has no Jacobian to penalize")
"""Decorates the constructor of a head without a Jacobian that version 0.1.0 had."""


class Head(keras.layers.Layer):
    """Features in, unit-length embeddings out.

        x  --dropout, dense-->  --connection-->  z  --transform-->  y  --L2-->  embedding

    **Writing a new head** takes two methods, of which either may be left out: `build_transform()` creates and builds
    the Keras sublayers for width `self.dim`, and `transform(z, training)` returns `y`; and one row in
    `tests/heads/table.py`, which subjects it to every test that the others pass. An invertible map with a Jacobian to
    penalize is a `FlowHead`.

    Numbers: a head computes in float32 (or float64) even under a mixed-precision policy, because float16 loses the
    inverse of a flow. The connection `"rms"` scales `z` to root mean square 1, which changes no direction.

    Args:
        dim: `d`, width of the embedding, 2 or more.
        projection: `"auto"` (default): a dense layer with bias where the feature width differs from `dim`;
            `"always"`; `"never"`.
        dropout: Rate on the incoming features, while training. Default 0.
        connection: What stands between projection and transform: `"rms"` (default), or any Keras activation by name,
            `"linear"` for nothing.
        dtype: float32, or float64 if asked; half and mixed policies become float32. Default: Keras' policy.
        name, trainable: As in `keras.layers.Layer`.

    Call arguments:
        features: `(B, F)`, F static.
        training: Whether dropout acts.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: For arguments out of range, inputs that are not `(B, F)` and, in eager calls, features that are
            NaN, infinite or beyond 1e16.
    """

    penalty = 0.0
    """λ of `loss + λ·R`: there is no Jacobian to penalize."""

    def __init__(
        self,
        dim: int,
        projection: str = "auto",
        dropout: float = 0.0,
        connection: str = "rms",
        dtype: Any = None,
        *,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=_full_precision(dtype), trainable=trainable)
        self.dim = checks.integer("dim", dim, 2)
        self.projection = checks.choice("projection", projection, PROJECTIONS)
        self.dropout = checks.within("dropout", dropout, 0, 1, "[)")
        self.connection = connection
        self._connect = _rms if connection == "rms" else keras.activations.get(connection)
        self.input_dropout = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy) if self.dropout else None
        self.dense: Any = None
        weight_groups.register(self)

    # What a subclass states.

    def build_transform(self) -> None:
        """Create and build the sublayers and weights of `transform`."""

    def transform(self, z: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return `y` of the projected features `z`, `(B, dim)` → `(B, dim)`."""
        return z

    # What it gets.

    def build(self, input_shape: Shape) -> None:
        """Create the projection, where one is needed, and the transform."""
        width = check_width(input_shape, self.name)
        if self.projection == "never" and width != self.dim:
            raise checks.invalid(
                "projection",
                f"be 'auto' or 'always' where the features' width is not dim={self.dim}",
                f"'never' and inputs of shape {tuple(input_shape)}",
            )
        if self.projection == "always" or width != self.dim:
            self.dense = keras.layers.Dense(self.dim, name="projection", dtype=self.dtype_policy)
            self.dense.build((None, width))
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: width})
        self.build_transform()

    def project(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return `z`: features through dropout, projection and connection. `(B, F)` → `(B, dim)`."""
        check_built(self)
        z = keras.ops.cast(features, self.compute_dtype)
        if self.input_dropout is not None:
            z = self.input_dropout(z, training=training)
        if self.dense is not None:
            z = self.dense(z)
        return self._connect(z)

    def flow(self, z: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return `y` and the log-scales of the triangular factors of its Jacobian: none, unless the head is a flow."""
        return self.transform(z, training), []

    def regularity(self, log_scales: list[tf.Tensor], measure: str | None = None) -> tf.Tensor:
        """Return R of the log-scales that `flow` returned: 0, unless the head is a flow."""
        return tf.zeros(())

    def normalize(self, y: tf.Tensor) -> tf.Tensor:
        """Return the rows of `y` scaled to length 1; a zero row stays zero."""
        return unit(y)

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the embeddings of features."""
        check_finite(features, self.name)
        y, _ = self.flow(self.project(features, training), training)
        return self.normalize(y)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(B, dim)`."""
        return (input_shape[0], self.dim)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "projection": self.projection,
            "dropout": self.dropout,
            "connection": self.connection,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Head":
        """Return a head of a configuration, of version 0.1.0 too."""
        return cls(**{key: value for key, value in config.items() if key not in ONLY_FOR_FLOWS})


def _full_precision(dtype: Any) -> keras.DTypePolicy:
    """Return the float32 policy in place of any half or mixed one; float64 stays."""
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    return policy if policy.name in ("float32", "float64") else keras.DTypePolicy("float32")


def _rms(z: tf.Tensor) -> tf.Tensor:
    """Return `z / sqrt(mean(z²))`, row by row: the same direction, root mean square 1."""
    return z * tf.math.rsqrt(tf.reduce_mean(tf.square(z), axis=-1, keepdims=True) + 1e-6)

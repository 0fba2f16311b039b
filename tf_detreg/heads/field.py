"""The vector field of FFJORD, and the trace of its Jacobian in closed form."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_detreg.shapes import Shape


class Rates(NamedTuple):
    """How fast a point and its log-determinant move: `(B, d)` and `(B, 1)`."""

    velocity: tf.Tensor
    trace: tf.Tensor

    def __neg__(self) -> "Rates":
        """Return the rates of the flow run backwards."""
        return Rates(-self.velocity, -self.trace)


@keras.saving.register_keras_serializable("tf_detreg")
class Field(keras.layers.Layer):
    """`f(z, t) = φ(z·W + t·u + b)·V + c`: one hidden layer, started near zero.

    Because there is one hidden layer, the trace of `∂f/∂z` needs no differentiation and no d-fold loop:

        tr(∂f/∂z) = Σ_k φ'(h_k)·q_k,       q_k = Σ_i W_ik·V_ki

    and since `|φ'| ≤ 1` for the usual activations, `|tr| ≤ Σ_k |q_k|`. `V` is therefore scaled down where needed, so
    that `Σ_k |q_k| ≤ b·d`: no point's mean log-scale leaves `±b` over `t ∈ [0, 1]`.

    Args:
        dim: `d`.
        hidden: Number of hidden units.
        activation: φ, smooth.
        scale_bound: `b`.
    """

    def __init__(self, dim: int, hidden: int, activation: Any, scale_bound: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden = hidden
        self.activation = keras.activations.get(activation)
        self.scale_bound = scale_bound

    def build(self, input_shape: Shape | None = None) -> None:
        near_zero = keras.initializers.VarianceScaling(scale=1e-4, mode="fan_in")
        self.inner = self.add_weight(name="inner", shape=(self.dim, self.hidden), initializer="glorot_uniform")
        self.time = self.add_weight(name="time", shape=(self.hidden,), initializer="zeros")
        self.inner_bias = self.add_weight(name="inner_bias", shape=(self.hidden,), initializer="zeros")
        self.outer = self.add_weight(name="outer", shape=(self.hidden, self.dim), initializer=near_zero)
        self.outer_bias = self.add_weight(name="outer_bias", shape=(self.dim,), initializer="zeros")

    def parameters(self) -> dict[str, tf.Tensor]:
        """Return the current weights, with `V` brought within the bound, and `q`."""
        overlap = tf.reduce_sum(self.inner.value * tf.transpose(self.outer.value), axis=0)
        excess = tf.reduce_sum(tf.abs(overlap)) / (self.scale_bound * self.dim)
        shrink = 1.0 / tf.maximum(excess, 1.0)
        return {
            "inner": tf.convert_to_tensor(self.inner.value),
            "time_weight": tf.convert_to_tensor(self.time.value),
            "inner_bias": tf.convert_to_tensor(self.inner_bias.value),
            "outer": self.outer.value * shrink,
            "outer_bias": tf.convert_to_tensor(self.outer_bias.value),
            "overlap": overlap * shrink,
        }

    def estimated_overlap(self, parameters: dict[str, tf.Tensor], probe: tf.Tensor) -> tf.Tensor:
        """Return `(v·W)_k · (V·v)_k`, Hutchinson's estimate of `q_k` with `probe` `(B, d)` for `v`: `(B, hidden)`."""
        return tf.matmul(probe, parameters["inner"]) * tf.matmul(probe, parameters["outer"], transpose_b=True)

    def rates(self, time: tf.Tensor, z: tf.Tensor, parameters: dict[str, tf.Tensor], overlap: tf.Tensor) -> "Rates":
        """Return `f(z, t)` and its trace `Σ_k φ'(h_k)·q_k`.

        Args:
            time: Scalar.
            z: `(B, d)`.
            parameters: What `parameters()` returned.
            overlap: `q`, `(hidden,)`, or its estimate.
        """
        h = tf.matmul(z, parameters["inner"]) + (time * parameters["time_weight"] + parameters["inner_bias"])
        with tf.GradientTape() as tape:
            tape.watch(h)
            activity = self.activation(h)
        slope = tape.gradient(activity, h)
        trace = tf.reduce_sum(slope * overlap, axis=-1, keepdims=True)
        return Rates(tf.matmul(activity, parameters["outer"]) + parameters["outer_bias"], trace)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dim": self.dim,
            "hidden": self.hidden,
            "activation": keras.activations.serialize(self.activation),
            "scale_bound": self.scale_bound,
        }

"""FFJORD: the flow of a differential equation."""

import collections
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.heads import ode
from tf_detreg.heads.field import Field, Rates
from tf_detreg.heads.flow import FlowHead
from tf_detreg.heads.measures import check_measure

Solution = collections.namedtuple("Solution", ["states"])


@keras.saving.register_keras_serializable("tf_detreg")
class FFJORD(FlowHead):
    """A flow of infinitely many infinitely thin layers.

        dz/dt = f(z, t),   z(0) = z,   y = z(1),      log|det J| = ∫₀¹ tr(∂f/∂z) dt

    Each thin layer has the Jacobian `I + dt·A` with `A = ∂f/∂z`, and for a thin layer the paper's penalty is linear:
    `log det(2I + dt·A) − d·log 2 → ½·tr(A)·dt`. Summed over all of them,

        R = (1/2d) · log|det J|

    is the whole of it, so `"shifted"` and `"log_det"` differ by the factor ½ alone. `Σ s²` over ever thinner layers
    tends to 0; `"isometric"` is therefore read off the whole map: `(log|det J| / d)²`, zero where volume is preserved.
    `log_scales` is one `(B, 1)` tensor, `log|det J|`.

    The field has one hidden layer, `f = φ(z·W + t·u + b)·V + c`, so that its trace has a closed form and costs next to
    nothing (see `Field`); `V` is kept small enough that no point's mean log-scale `log|det J| / d` leaves ±scale_bound.
    The inverse integrates backwards in time, and is as exact as the solver.

    Args:
        dim: Width of the flow and of the embedding, 2 or more.
        hidden: Width of the field's hidden layer. Default 512.
        activation: φ; choose a smooth one. Default `"tanh"`.
        trace: `"exact"` (default), or `"hutchinson"`: `vᵀ(∂f/∂z)v` with one Gaussian `v` per sample and pass, unbiased
            and noisy; its square, in `"isometric"`, is larger by the noise's variance on average. `y` is the same
            either way up to the solver's tolerance. At inference `v` is fixed.
        solver: `"rk4"` (default), a fixed number of steps; or `"dormand_prince"`, adaptive.
        steps: Of `"rk4"`. Default 4.
        tolerance: Of `"dormand_prince"`, absolute and relative. Default 1e-5.
        max_steps: Of `"dormand_prince"`: when they do not suffice the result is NaN. Default 100.
        scale_bound: Bound on the mean log-scale, above 0. Default 0.5.
        penalty: λ of `loss + λ·R`; negative for a rival. Default 0.
        measure: `"isometric"` (default), `"shifted"` (the paper's) or `"log_det"`.
        projection: `"auto"` (default), `"always"` or `"never"`: the dense layer before the flow.
        dropout: Rate on the incoming features, while training. Default 0.
        connection: Between projection and flow: `"rms"` (default) or a Keras activation, `"linear"` for nothing.
        name, dtype, trainable: As in `keras.layers.Layer`.

    Call arguments:
        features: `(B, F)` floats, F static.
        training: Whether dropout acts, the penalty is added and Hutchinson's `v` is drawn anew.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: See `FlowHead`.

    Example:
        >>> head = FFJORD(dim=8, hidden=16, penalty=1.0)
        >>> head(tf.random.normal((3, 20)), training=True).shape
        TensorShape([3, 8])
        >>> z = head.project(tf.random.normal((3, 20)))
        >>> y, (log_det,) = head.flow(z)
        >>> bool(tf.reduce_max(tf.abs(head.inverse(y) - z)) < 1e-5)
        True

    Reference:
        Grathwohl et al., "FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models", 2019,
        https://arxiv.org/abs/1810.01367
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 512,
        activation: Any = "tanh",
        trace: str = "exact",
        solver: str = "rk4",
        steps: int = 4,
        tolerance: float = 1e-5,
        max_steps: int = 100,
        scale_bound: float = 0.5,
        penalty: float = 0.0,
        measure: str = "isometric",
        projection: str = "auto",
        dropout: float = 0.0,
        connection: str = "rms",
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            dim, penalty, measure, projection, dropout, connection, name=name, dtype=dtype, trainable=trainable
        )
        self.hidden = checks.integer("hidden", hidden, 1)
        self.activation = keras.activations.get(activation)
        self.trace = checks.choice("trace", trace, ("exact", "hutchinson"))
        self.solver = checks.choice("solver", solver, ("rk4", "dormand_prince"))
        self.steps = checks.integer("steps", steps, 1)
        self.tolerance = checks.positive("tolerance", tolerance)
        self.max_steps = checks.integer("max_steps", max_steps, 1)
        self.scale_bound = checks.positive("scale_bound", scale_bound)

    def build_flow(self) -> None:
        self.field = Field(
            self.dim, self.hidden, self.activation, self.scale_bound, name="field", dtype=self.dtype_policy
        )
        self.field.build()
        if self.trace == "hutchinson":
            # As a weight of the layer, so that a resumed run draws what an unbroken one would.
            self.probes = keras.random.SeedGenerator()

    def factors(self, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list[Any]:
        from tensorflow_probability import bijectors as tfb

        weights = self.field.parameters()

        def with_trace(
            rates: Callable[..., Rates], shape: tf.Tensor, dtype: tf.DType
        ) -> Callable[[tf.Tensor, ode.State], ode.State]:
            overlap = weights["overlap"]
            if self.trace == "hutchinson":
                overlap = self.field.estimated_overlap(weights, self._probe(shape, training))
            # For the inverse TFP hands over −f(1 − t); both rates change sign with it.
            return lambda t, state: tuple(rates(t, state[0], overlap=overlap))

        def solve(
            ode_fn: Callable[[tf.Tensor, ode.State], ode.State],
            initial_time: tf.Tensor,
            initial_state: ode.State,
            solution_times: tf.Tensor,
        ) -> Solution:
            # TFP starts the log-determinant as one zero per coordinate; its rate here is one number per sample.
            z, zeros = initial_state
            state = (z, zeros[:, :1])
            if self.solver == "rk4":
                y, log_det = ode.rk4(ode_fn, state, self.steps)
            else:
                y, log_det = ode.dormand_prince(ode_fn, state, self.tolerance, self.max_steps)
            record(log_det)
            # TFP sums over the coordinates again.
            share = tf.broadcast_to(log_det / self.dim, tf.shape(y))
            return Solution((y[tf.newaxis], share[tf.newaxis]))

        def rates(t: tf.Tensor, z: tf.Tensor, overlap: tf.Tensor) -> Rates:
            return self.field.rates(t, z, weights, overlap)

        return [
            tfb.FFJORD(
                rates, ode_solve_fn=solve, trace_augmentation_fn=with_trace, dtype=tf.as_dtype(self.compute_dtype)
            )
        ]

    def _probe(self, shape: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Return Hutchinson's `v`: new in every training pass, always the same at inference."""
        if training:
            return keras.random.normal(shape, dtype=self.compute_dtype, seed=self.probes)
        return tf.random.stateless_normal(shape, seed=(0, 0), dtype=self.compute_dtype)

    def regularity(self, log_scales: list[tf.Tensor], measure: str | None = None) -> tf.Tensor:
        mean = log_scales[0] / self.dim
        rho = {"shifted": 0.5 * mean, "log_det": mean, "isometric": tf.square(mean)}
        return tf.reduce_mean(rho[check_measure(measure or self.measure)])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "activation": keras.activations.serialize(self.activation),
            "trace": self.trace,
            "solver": self.solver,
            "steps": self.steps,
            "tolerance": self.tolerance,
            "max_steps": self.max_steps,
            "scale_bound": self.scale_bound,
        }

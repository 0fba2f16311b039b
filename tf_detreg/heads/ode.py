"""Two solvers of `dx/dt = f(t, x)` from t = 0 to t = 1, written so that TensorFlow differentiates through them.

A state is a tuple of tensors. The gradient is that of the computed numbers themselves, not of an adjoint equation that
is integrated anew (as TFP's `DormandPrince` does), so it is as exact as the arithmetic and costs no second integration.

Reference: Dormand, Prince, "A family of embedded Runge-Kutta formulae", 1980; Hairer, Nørsett, Wanner, "Solving
Ordinary Differential Equations I", II.4 (step size control).
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

State = tuple[tf.Tensor, ...]
VectorField = Callable[[Any, State], State]

# Dormand-Prince: nodes, stages, and the difference between its 5th- and 4th-order results.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def advance(state: State, slopes: list[State], weights: tuple[float, ...], step: tf.Tensor | float) -> State:
    """Return `x + step · Σ_i weights_i · slopes_i`, per part of the state."""
    used = [(w, k) for w, k in zip(weights, slopes, strict=False) if w]
    return tuple(x + tf.add_n([(step * w) * k[part] for w, k in used]) for part, x in enumerate(state))


def rk4(f: VectorField, state: State, steps: int) -> State:
    """Solve by the classical fourth-order method in `steps` equal steps: four evaluations each, one fixed graph."""
    step = 1.0 / steps
    for i in range(steps):
        t = i * step
        k1 = f(t, state)
        k2 = f(t + step / 2, advance(state, [k1], (0.5,), step))
        k3 = f(t + step / 2, advance(state, [k2], (0.5,), step))
        k4 = f(t + step, advance(state, [k3], (1.0,), step))
        state = advance(state, [k1, k2, k3, k4], (1 / 6, 1 / 3, 1 / 3, 1 / 6), step)
    return state


def dormand_prince(f: VectorField, state: State, tolerance: float, max_steps: int) -> State:
    """Solve by the fifth-order method with steps as long as `tolerance` allows.

    A step is accepted where its error, coordinate by coordinate, stays within `tolerance · (1 + |x|)`. The gradient
    treats the step sizes as given.

    Returns:
        The state at t = 1; NaN if `max_steps` did not lead there, so that a wrong result cannot pass for a right one.
    """
    dtype = state[0].dtype
    one = tf.ones((), dtype)

    def attempt(t: tf.Tensor, step: tf.Tensor, slope: State, *state: tf.Tensor) -> tuple[Any, ...]:
        remaining = one - t
        last = step >= remaining
        step = tf.minimum(step, remaining)
        slopes = [slope]
        for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
            moved = advance(state, slopes, weights, step)
            slopes.append(f(t + node * step, moved))
        # The last stage stands at the new state: its slope begins the next step.
        error = tf.stop_gradient(_error(state, moved, slopes, step, tolerance))
        accepted = error <= 1.0
        growth = tf.clip_by_value(0.9 * tf.pow(tf.maximum(error, 1e-9), -0.2), 0.1, 10.0)

        def choose(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
            return tf.where(accepted, new, old)

        return (
            choose(tf.where(last, one, t + step), t),
            step * growth,
            tuple(map(choose, slopes[-1], slope)),
            *map(choose, moved, state),
        )

    t, _, _, *state = tf.while_loop(
        lambda t, *_: t < 1.0,
        attempt,
        (tf.zeros((), dtype), one, f(tf.zeros((), dtype), state), *state),
        maximum_iterations=max_steps,
    )
    nothing_or_nan = tf.where(t >= 1.0, tf.zeros((), dtype), tf.constant(float("nan"), dtype))
    return tuple(x + nothing_or_nan for x in state)


def _error(old: State, new: State, slopes: list[State], step: tf.Tensor, tolerance: float) -> tf.Tensor:
    """Return the largest error of a coordinate as a multiple of what is tolerated."""
    zeros = tuple(tf.zeros_like(x) for x in old)
    errors = advance(zeros, slopes, ERROR, step)
    ratios = [
        tf.reduce_max(tf.abs(e) / (tolerance * (1.0 + tf.maximum(tf.abs(a), tf.abs(b)))))
        for e, a, b in zip(errors, old, new, strict=True)
    ]
    return tf.reduce_max(tf.stack(ratios))

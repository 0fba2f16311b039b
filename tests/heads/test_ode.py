"""The two solvers on equations with known solutions."""

import numpy as np
import tensorflow as tf
from scipy.integrate import RK45

from tf_detreg.heads import ode


def grow(t, state):
    """x' = 2·t·x, so x(1) = e·x(0)."""
    return (2.0 * tf.cast(t, tf.float64) * state[0],)


START = (tf.constant([[1.0, -2.0]], tf.float64),)
END = np.e * START[0].numpy()


def test_rk4_converges_with_fourth_order():
    errors = [np.abs(ode.rk4(grow, START, steps)[0] - END).max() for steps in (8, 16)]
    assert 13 < errors[0] / errors[1] < 19


def test_dormand_prince_keeps_its_tolerance():
    for tolerance in (1e-4, 1e-7, 1e-10):
        error = np.abs(ode.dormand_prince(grow, START, tolerance, 1000)[0] - END).max()
        assert error < 10 * tolerance


def test_dormand_prince_gradient():
    x = START[0]
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(ode.dormand_prince(grow, (x,), 1e-9, 1000)[0])
    np.testing.assert_allclose(tape.gradient(total, x), np.full((1, 2), np.e), rtol=1e-7)


def test_too_few_steps_give_nan():
    assert np.isnan(ode.dormand_prince(grow, START, 1e-12, max_steps=2)[0]).all()


def test_the_error_is_that_of_the_worst_coordinate_relative_to_its_size():
    """`|e| / (tolerance · (1 + max(|old|, |new|)))`, of every part of the state."""
    one, other = (tf.constant(x, tf.float64) for x in ([[0.0, -3.0]], [[0.5]]))
    new = (tf.constant([[1.0, 2.0]], tf.float64), tf.constant([[-9.0]], tf.float64))
    none = (tf.zeros((1, 2), tf.float64), tf.zeros((1, 1), tf.float64))

    def error(first, second):
        """Of a step of 0.5 with a slope at the last stage alone, whose weight is -1/40."""
        slope = (tf.constant([first], tf.float64), tf.constant([[second]], tf.float64))
        return float(ode._error((one, other), new, [none] * 6 + [slope], tf.constant(0.5, tf.float64), 0.01))

    np.testing.assert_allclose(error([1.0, 0.0], 0.0), 0.5 / 40 / (0.01 * (1 + 1)))
    np.testing.assert_allclose(error([0.0, -1.0], 0.0), 0.5 / 40 / (0.01 * (1 + 3)))
    np.testing.assert_allclose(error([0.0, 0.0], 1.0), 0.5 / 40 / (0.01 * (1 + 9)))
    np.testing.assert_allclose(error([1.0, -9.0], 2.0), 9 * 0.5 / 40 / (0.01 * (1 + 3)))


def test_the_error_estimate_is_that_of_dormand_and_prince():
    np.testing.assert_allclose(ode.ERROR, -RK45.E, rtol=1e-12)
    assert abs(sum(ode.ERROR)) < 1e-15
    for stage, row in zip(ode.STAGES[1:6], RK45.A[1:], strict=True):
        np.testing.assert_allclose(stage, row[: len(stage)], rtol=1e-12)
    np.testing.assert_allclose(ode.STAGES[6], RK45.B, rtol=1e-12)

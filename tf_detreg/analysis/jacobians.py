"""Norms and singular values of Jacobians, in bounded memory."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_detreg.analysis.memory import MEMORY, BoundedMap, flat, forward_map, in_full
from tf_detreg.progress import ticker

_LOG = logging.getLogger(__name__)


def spectral_norm(
    function: Callable[..., Any],
    x: tf.Tensor,
    iterations: int = 20,
    seed: int = 0,
    tick: Callable[[int], None] = lambda rows: None,
    memory: float = MEMORY,
) -> np.ndarray:
    """Return the largest singular value of the Jacobian at each row of `x`: power iteration on `Jᵀ·J`.

    Args:
        function: The map, of `(B, …)` to `(B, …)` for any B.
        x: `(n, …)` the points.
        iterations: Default 20.
        seed: Of the first directions. Default 0.
        tick: Called with the number of rows after each iteration on them, and with all at once if they do not fit.
        memory: Gigabytes that a step may take, by which rows run side by side. Default 0.6.

    Returns:
        `(n,)`; `(0,)` if the memory is too small for one row.
    """

    def step(x: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
                y = in_full(function, x)
            stretched = accumulator.jvp(y, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            pulled = tape.gradient(y, x, output_gradients=tf.stop_gradient(stretched))
        return _unit(pulled), tf.norm(flat(stretched), axis=-1)

    bounded = _derivative(step, x, x, memory=memory)
    if bounded is None:
        tick(len(x) * iterations)  # nothing of it is left to be waited for
        return np.zeros(0, x.dtype.as_numpy_dtype)
    # All directions at once, so that the numbers do not depend on how many rows a step takes.
    directions = tf.random.stateless_normal(tf.shape(x), (seed, 1), dtype=x.dtype)
    found = []
    for rows, v in bounded.parts(x, directions):
        v = _unit(v)
        for _ in range(iterations):
            v, norms = bounded(rows, v)
            tick(len(rows))
        found.append(norms.numpy())
    return np.concatenate(found)


def frobenius_norm(
    function: Callable[..., Any],
    x: tf.Tensor,
    probes: int = 16,
    seed: int = 0,
    tick: Callable[[int], None] = lambda rows: None,
    memory: float = MEMORY,
) -> np.ndarray:
    """Return `sqrt(mean ‖J·v‖²)` over `probes` directions of random signs, at each row of `x`.

    Signs, because they are exact where the columns of `J` are orthogonal, as they nearly are for a young flow. The
    other arguments are those of `spectral_norm`; `tick` is called after each direction.
    """

    def squared(x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            y = in_full(function, x)
        stretch = accumulator.jvp(y, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.reduce_sum(tf.square(flat(stretch)), axis=-1)

    bounded = _derivative(squared, x, x, memory=memory)
    if bounded is None:
        tick(len(x) * probes)
        return np.zeros(0, x.dtype.as_numpy_dtype)
    total = np.zeros(len(x), np.float64)
    for probe in range(probes):
        signs = tf.sign(tf.random.stateless_uniform(tf.shape(x), (seed, 2 + probe), -1.0, 1.0, x.dtype))
        first = 0
        for rows, v in bounded.parts(x, signs):
            total[first : first + len(rows)] += bounded(rows, v).numpy()
            first += len(rows)
            tick(len(rows))
    return np.sqrt(total / probes).astype(x.dtype.as_numpy_dtype)


def singular_values(
    function: Callable[..., Any], x: tf.Tensor, memory: float = MEMORY, tick: Callable[[int], None] = lambda rows: None
) -> np.ndarray:
    """Return all singular values of the Jacobian at each row of `x`, largest first: one backward pass per output.

    Args:
        function: The map, of `(B, …)` to `(B, outputs)` for any B.
        x: `(n, …)` the points.
        memory: Gigabytes that a step may take, without the Jacobian of one row itself. Default 0.6.
        tick: Called with the number of rows of Jacobians after each step.

    Returns:
        `(n, r)`; `(0, 0)` if the memory is too small for one row.
    """

    def gradient(x: tf.Tensor, directions: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = in_full(function, x)
        return flat(tape.gradient(y, x, output_gradients=directions))

    width = forward_map(function, x, memory).width
    bounded = _derivative(gradient, x, tf.zeros((1, width), x.dtype), memory=memory)
    if bounded is None:
        return np.zeros((0, 0), x.dtype.as_numpy_dtype)
    found = []
    for n in range(len(x)):
        rows = []
        for directions in bounded.parts(tf.eye(width, dtype=x.dtype)):
            rows.append(bounded(tf.repeat(x[n : n + 1], len(directions), axis=0), directions).numpy())
            tick(len(directions))
        found.append(np.linalg.svd(np.concatenate(rows), compute_uv=False))
    return np.stack(found)


def log_determinant(head: Any, z: tf.Tensor) -> np.ndarray | None:
    """Return `log|det J|` of a head's flow at each row of `z`, from its log-scales; None if it has none."""
    scales = head.flow(z, training=False)[1]
    return sum(tf.reduce_sum(s, axis=-1) + tf.zeros(len(z), z.dtype) for s in scales).numpy() if scales else None


def spectrum_of(
    function: Callable[..., tf.Tensor],
    x: tf.Tensor,
    width: int | None,
    limit: int,
    memory: float,
    name: str,
    progress: bool | None,
) -> np.ndarray | None:
    """Return all singular values at a few points; None if the Jacobians are too large."""
    if width is None or int(np.prod(x.shape[1:])) * width > limit**2:
        return None
    with ticker(f"{name}: singular values", len(x) * width, progress) as tick:
        found = singular_values(function, x, memory, tick)
        if not len(found):
            tick(len(x) * width)
    return found if len(found) else None


def _derivative(function: Callable[..., Any], *examples: tf.Tensor, memory: float) -> BoundedMap | None:
    """Return a pass of derivatives in bounded memory; None, with a note in the log, if one row needs more."""
    bounded = BoundedMap(function, *examples, memory=memory)
    if bounded.fits:
        return bounded
    _LOG.warning(
        "The derivatives at one point need %.1f GB, more than `memory`=%g: their numbers are left out. Allow more, "
        "or measure a model of smaller images.",
        bounded.needs,
        memory,
    )
    return None


def _unit(x: tf.Tensor) -> tf.Tensor:
    rows = flat(x)
    # By its largest entry first: the square of a small Jacobian's product would underflow.
    largest = tf.reduce_max(tf.abs(rows), axis=-1, keepdims=True)
    return tf.reshape(tf.math.l2_normalize(tf.math.divide_no_nan(rows, largest), axis=-1), tf.shape(x))

"""Three ways to read one number, the regularity `R`, off the log-scales of a flow.

A flow head is a chain of triangular maps. The Jacobian of the `t`-th has the diagonal `exp(s_t)`, and a head hands out
every `s_t` together with its output. A measure is a function `rho` applied to each entry:

    R = (1/d) · mean over the batch of  Σ_t Σ_j rho(s_tj)

- `"shifted"`, rho(s) = softplus(s) − log 2: `log det(J_t + I) − d·log 2`, the paper's. Its slope at s = 0 is 1/2,
  so it has no minimum at the identity: it shrinks volume until the scales meet their bound.
- `"log_det"`, rho(s) = s: the signed log-volume, `log det J`.
- `"isometric"`, rho(s) = s²: zero exactly where each factor preserves volume coordinate by coordinate, growing on both
  sides. The heads' default: it did better on frozen features (`docs/results.md`).

All three are 0 for the identity.

Reference: "Determinant Regularization for Deep Metric Learning", equations 6, 7 and 10.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from tf_detreg import checks


def shifted(s: tf.Tensor) -> tf.Tensor:
    """Return `softplus(s) − log 2`: one diagonal entry's part of `log det(J + I)`, counted from the identity."""
    return tf.nn.softplus(s) - math.log(2.0)


def log_det(s: tf.Tensor) -> tf.Tensor:
    """Return `s`: one diagonal entry's part of `log det J`."""
    return s


def isometric(s: tf.Tensor) -> tf.Tensor:
    """Return `s²`: how far one diagonal entry is from preserving volume, in either direction."""
    return tf.square(s)


MEASURES = {"shifted": shifted, "log_det": log_det, "isometric": isometric}


def check_measure(measure: str) -> str:
    """Return `measure` if it is the name of one.

    Raises:
        ValueError: If it is not.
    """
    return checks.choice("measure", measure, MEASURES)


def regularity(log_scales: Sequence[tf.Tensor], dim: int, measure: str = "isometric") -> tf.Tensor:
    """Return `R`, averaged over the batch.

    Args:
        log_scales: One tensor per triangular factor: `(B, n)` where the scale depends on the sample, `(n,)` where it
            does not. Coordinates that a factor leaves alone are left out: their log-scale is 0 and adds nothing.
        dim: `d`, the width of the flow.
        measure: Name of the measure. Default `"isometric"`.

    Returns:
        A scalar; 0 if there are no log-scales.

    Example:
        >>> s = tf.constant([[0.5, -0.5]])
        >>> float(regularity([s], dim=4))
        0.125
    """
    rho = MEASURES[check_measure(measure)]
    if not log_scales:
        return tf.zeros(())
    per_factor = [tf.reduce_sum(tf.reduce_mean(rho(s), axis=0) if s.shape.rank == 2 else rho(s)) for s in log_scales]
    return tf.add_n(per_factor) / dim

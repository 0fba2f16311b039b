"""How exact a head's inverse is, by depth, bound, weights and precision: `python -m tf_detreg.heads.limits`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_detreg.heads.ffjord import FFJORD
from tf_detreg.heads.flow import FlowHead
from tf_detreg.heads.glow import Glow
from tf_detreg.heads.nice import NICE
from tf_detreg.heads.real_nvp import RealNVP

DIM, HIDDEN = 512, 128


def inverse_error(head: FlowHead, growth: float, samples: int = 64, seed: int = 0) -> float:
    """Return `max |g⁻¹(g(z)) − z| / max |z|` once every weight matrix has grown.

    Args:
        head: Not yet built, or built for features of width `dim`.
        growth: Standard deviation of what is added to each matrix entry, in units of `1 / sqrt(inputs)`: 0 leaves the
            near-identity start, 1 is the usual start of a network, 2 twice that.
        samples: Rows of `z`. Default 64.
        seed: Of weights and `z`.
    """
    keras.utils.set_random_seed(seed)
    if not head.built:
        head.build((None, head.dim))
    random = np.random.default_rng(seed)
    for variable in head.trainable_variables:
        # Glow's triangular factors multiply errors by their condition; they move less in training than the networks.
        scale = 0.1 if variable.name.startswith(("lower", "upper")) else 1.0
        noise = random.standard_normal(variable.shape) / np.sqrt(variable.shape[0])
        variable.assign(variable.numpy() + scale * growth * noise)
    z = head.project(tf.constant(random.standard_normal((samples, head.dim)), head.compute_dtype))
    y, _ = head.flow(z)
    return float(tf.reduce_max(tf.abs(head.inverse(y) - z)) / tf.reduce_max(tf.abs(z)))


def half_precision_error(head: FlowHead, dtype: tf.DType, growth: float = 0.5) -> float:
    """Return the relative error of the inverse when the output is kept in `dtype`, as an index may keep it."""
    inverse_error(head, growth)
    z = head.project(tf.random.stateless_normal((64, head.dim), (0, 0)))
    y, _ = head.flow(z)
    rounded = tf.cast(tf.cast(y, dtype), y.dtype)
    return float(tf.reduce_max(tf.abs(head.inverse(rounded) - z)) / tf.reduce_max(tf.abs(z)))


def table() -> str:
    """Return the table of `docs/heads.md`."""
    lines = [
        "| head (d = 512, hidden 128) | start | growth 0.25 | growth 0.5 | growth 1 | growth 2 |",
        "|---|---|---|---|---|---|",
    ]
    rows: dict[str, tuple[Callable[..., FlowHead], dict[str, Any]]] = {}
    for depth in (4, 12, 24):
        for bound in (0.3, 0.5, 1.0, 2.0):
            if depth == 12 or bound == 0.5:
                rows[f"RealNVP, depth {depth}, bound {bound}"] = (RealNVP, {"depth": depth, "scale_bound": bound})
    rows["NICE, depth 12"] = (NICE, {})
    rows["Glow, depth 12, bound 0.5"] = (Glow, {})
    rows["FFJORD, rk4, 4 steps"] = (FFJORD, {})
    rows["FFJORD, rk4, 16 steps"] = (FFJORD, {"steps": 16})
    for name, (kind, options) in rows.items():
        errors = [inverse_error(kind(DIM, hidden=HIDDEN, **options), growth) for growth in (0, 0.25, 0.5, 1, 2)]
        lines.append(f"| {name} | " + " | ".join(f"{error:.0e}" for error in errors) + " |")
    lines += ["", "| RealNVP, depth 12, growth 0.5: output kept in | relative error of the inverse |", "|---|---|"]
    for dtype in (tf.float32, tf.float16, tf.bfloat16):
        lines.append(f"| {dtype.name} | {half_precision_error(RealNVP(DIM, hidden=HIDDEN), dtype):.0e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

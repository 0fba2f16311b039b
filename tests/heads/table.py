"""Every head, once: a new head is one more row, and every test of this folder that takes `name` then runs on it.

`FLOWS` are invertible; `CONTROLS` keep the same methods without a flow. Options are small, smooth and such that float64
leaves nothing to excuse.
"""

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import heads

SMOOTH = {"hidden": 7, "activation": "tanh"}
FLOWS = {
    "real_nvp": (heads.RealNVP, {"depth": 3, **SMOOTH}),
    "real_nvp_deep_nets": (heads.RealNVP, {"depth": 2, "hidden_layers": 2, **SMOOTH}),
    "real_nvp_linear_nets": (heads.RealNVP, {"depth": 2, "hidden_layers": 0}),
    "nice": (heads.NICE, {"depth": 3, **SMOOTH}),
    "glow": (heads.Glow, {"depth": 3, **SMOOTH}),
    "glow_even": (heads.Glow, {"depth": 2, "data_dependent": False, **SMOOTH}),
    "ffjord": (heads.FFJORD, {"steps": 30, **SMOOTH}),
    "ffjord_adaptive": (heads.FFJORD, {"solver": "dormand_prince", "tolerance": 1e-11, **SMOOTH}),
}
CONTROLS = {"linear": (heads.Linear, {}), "residual_mlp": (heads.ResidualMLP, {"blocks": 2, **SMOOTH})}
ALL = {**FLOWS, **CONTROLS}


def make(name: str, dim: int = 5, width: int | None = 8, grow: float = 0.4, dtype: str = "float64", **options):
    """A built head whose weights have left their near-zero start by normal noise of size `grow`."""
    kind, defaults = ALL[name]
    keras.utils.set_random_seed(0)
    head = kind(dim, dtype=dtype, **{**defaults, **options})
    head.build((None, width or dim))
    random = np.random.default_rng(0)
    for variable in head.trainable_variables:
        variable.assign(variable.numpy() + grow * random.standard_normal(variable.shape))
    return head


def features(count: int = 6, width: int = 8, seed: int = 1, dtype: str = "float64") -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).standard_normal((count, width)), dtype)


def jacobian(function, x: tf.Tensor) -> tf.Tensor:
    """`(B, d, d)`: row by row, as a `tf.function` that a while loop inside `function` does not disturb."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        columns = tf.unstack(function(x), axis=-1)
    return tf.stack([tape.gradient(column, x) for column in columns], axis=1)


def embedder(head, width: int = 8) -> keras.Model:
    return keras.Sequential([keras.Input((width,)), head])

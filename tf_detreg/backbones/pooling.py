"""From a feature map, or a sequence of tokens, to one vector an image."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_detreg import checks
from tf_detreg.shapes import Shape

POOLINGS = ("avg", "max", "both", "gem", "first", "class", "patches", "class+patches", "attention", "projection")
_OF_TOKENS = ("class", "patches", "class+patches")


@keras.saving.register_keras_serializable("tf_detreg")
class GeM(keras.layers.Layer):
    """Generalized-mean pooling with a learned power: `(mean(max(x, ε)^p))^(1/p)` over height and width.

    p = 1 is the average, p → ∞ the maximum.

    Args:
        power: p at the start. Default 3.0.
        epsilon: Floor under the features, which must not be negative. Default 1e-06.

    Call arguments:
        features: (B, H, W, C).

    Example:
    >>> import numpy as np
    >>> from tf_detreg.backbones import GeM
    >>> np.asarray(GeM(power=1.0)(np.ones((2, 3, 3, 5), "float32"))).shape
    (2, 5)

    Reference: Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019.
    """

    def __init__(
        self,
        power: float = 3.0,
        epsilon: float = 1e-6,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.power = checks.positive("power", power)
        self.epsilon = checks.positive("epsilon", epsilon)

    def build(self, input_shape: Shape) -> None:
        self.p = self.add_weight(name="power", shape=(), initializer=keras.initializers.Constant(self.power))

    def call(self, features: tf.Tensor) -> tf.Tensor:
        # In float32, and relative to the largest value: high powers overflow otherwise.
        dtype = features.dtype
        p = ops.maximum(ops.cast(self.p, "float32"), 1e-3)
        x = ops.maximum(ops.cast(features, "float32"), self.epsilon)
        top = ops.stop_gradient(ops.max(x, axis=(1, 2), keepdims=True))
        mean = ops.mean(ops.power(x / top, p), axis=(1, 2))
        return ops.cast(ops.power(mean, 1 / p) * top[:, 0, 0, :], dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("tf_detreg")
class TokenPool(keras.layers.Layer):
    """The class token of a transformer, the mean of its patches' tokens, or both side by side.

    Args:
        mode: "class", "patches" or "class+patches".
        prefix: How many tokens stand before those of the patches: the class token and registers. Default 1.

    Call arguments:
        tokens: (B, T, C), the class token first.

    Example:
    >>> import numpy as np
    >>> tokens = np.array([[[5.0], [1.0], [3.0]]], "float32")
    >>> float(TokenPool("class")(tokens)[0, 0]), float(TokenPool("patches")(tokens)[0, 0])
    (5.0, 2.0)
    """

    def __init__(
        self,
        mode: str = "class",
        prefix: int = 1,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.mode = checks.choice("mode", mode, _OF_TOKENS)
        self.prefix = checks.integer("prefix", prefix, int("class" in mode))

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        found = [tokens[:, 0]] if "class" in self.mode else []
        if "patches" in self.mode:
            found.append(ops.mean(tokens[:, self.prefix :], axis=1))
        return ops.concatenate(found, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        width = input_shape[-1]
        return (input_shape[0], None if width is None else width * len(self.mode.split("+")))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode, "prefix": self.prefix}


def pool(features: tf.Tensor, pooling: str = "avg", prefix: int | None = None) -> tf.Tensor:
    """Pool a feature map (B, H, W, C), or the tokens (B, T, C) of a transformer, by name.

    Args:
        features: What the backbone ends in.
        pooling: "avg", "max", "both" (side by side, 2·C) or "gem", which count a class token like any other; of tokens
            "class" (or "first"), "patches" (the mean of the others) and "class+patches".
        prefix: How many tokens stand before those of the patches; None, the default, where that is not known.

    Raises:
        ValueError: For another name, one that belongs to tokens for a feature map, a class token where there is none,
            or patches where it is not known which tokens they are.
    """
    tokens = len(features.shape) == 3
    belongs = pooling in POOLINGS and (tokens or pooling not in ("first", *_OF_TOKENS))
    if not belongs or pooling in ("attention", "projection"):
        raise ValueError(
            f"`pooling` must be one of {', '.join(POOLINGS)} ('first' for tokens (B, T, C) only, as 'class' and "
            f"'patches'; 'attention' of SigLIP, 'projection' of CLIP); received {pooling!r} for features of shape "
            f"{features.shape}."
        )
    if pooling in _OF_TOKENS:
        if prefix is None and pooling == "class":
            prefix = 1
        if prefix is None or prefix < ("class" in pooling):
            lacks = "which tokens are patches is not known" if prefix is None else "there is no class token"
            raise ValueError(f"`pooling`={pooling!r} does not fit this backbone: {lacks}. Take 'avg' or 'max'.")
        return TokenPool(pooling, prefix, name="pool_" + pooling.replace("+", "_"))(features)
    if pooling == "first":
        one = keras.layers.Cropping1D((0, features.shape[1] - 1), name="pool_first")(features)
        return keras.layers.Flatten(name="pool_flat")(one)
    if tokens:
        features = keras.layers.Reshape((features.shape[1], 1, features.shape[2]), name="tokens")(features)
    if pooling == "gem":
        return GeM(name="pool_gem")(features)
    average = keras.layers.GlobalAveragePooling2D(name="pool_avg")
    maximum = keras.layers.GlobalMaxPooling2D(name="pool_max")
    if pooling == "both":
        return keras.layers.Concatenate(name="pool_both")([average(features), maximum(features)])
    return (average if pooling == "avg" else maximum)(features)

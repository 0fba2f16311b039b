"""A small convolutional net for small images: what the embedded data sets train on a laptop."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.backbones.pooling import pool
from tf_detreg.backbones.scaling import PixelScaling


def small_cnn(
    image_size: int | tuple[int, int] = 32, width: int = 32, blocks: int = 3, pooling: str | None = "flatten"
) -> keras.Model:
    """Build blocks of two 3 × 3 convolutions with batch normalization, each block half the size and twice the channels.

    Args:
        image_size: Side or (height, width). Default 32.
        width: Channels of the first block. Default 32.
        blocks: Number of blocks: at most so many that the image is one pixel in the end, or 3. Default 3.
        pooling: "flatten", the default: every position counts, as in characters, and the features are normalized once
            more over the batch, so that an untrained net does not send all images to nearly one point; or "avg",
            "max", "both", "gem"; None for the feature map.

    Call arguments:
        images: (B, H, W, 3), values 0..255; scaled to −1..1 inside.

    Returns:
        A `keras.Model` with features (B, F); with "avg", "max" and "gem", F = width · 2^(blocks−1).

    Raises:
        ValueError: If a number is out of range.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.small_cnn(image_size=16, width=8).output_shape
    (None, 128)
    >>> backbones.small_cnn(image_size=16, width=8, pooling="avg").output_shape
    (None, 32)
    """
    from tf_detreg.images.geometry import height_width

    size = height_width(image_size)
    checks.integer("width", width, 1)
    # With each more the kernels take four times the memory.
    checks.integer("blocks", blocks, 1, max(3, (max(size) - 1).bit_length()))
    inputs = keras.Input((*size, 3), name="images")
    x = PixelScaling("symmetric", name="scale")(inputs)
    for block in range(blocks):
        for conv in range(2):
            name = f"block{block + 1}_{conv + 1}"
            strides = 2 if conv == 0 else 1
            x = keras.layers.Conv2D(
                width * 2**block, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
            )(x)
            x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
            x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
    return keras.Model(inputs, _features(x, pooling), name="small_cnn")


def _features(x: tf.Tensor, pooling: str | None) -> tf.Tensor:
    if pooling is None:
        return x
    if pooling == "flatten":
        return keras.layers.BatchNormalization(name="features_norm")(keras.layers.Flatten(name="flatten")(x))
    return pool(x, pooling)

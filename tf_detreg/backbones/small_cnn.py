"""A small convolutional net for small images: what the embedded data sets train on a laptop."""

from __future__ import annotations

import keras

from tf_detreg.backbones.pooling import pool


def small_cnn(
    image_size: int | tuple[int, int] = 32, width: int = 32, blocks: int = 3, pooling: str | None = "avg"
) -> keras.Model:
    """Blocks of two 3 × 3 convolutions with batch normalisation, each block half the size and twice the channels.

    Args:
        image_size: side or (height, width).
        width: channels of the first block.
        blocks: number of blocks.
        pooling: "avg", "max", "both" or "gem"; None leaves the feature map (B, H, W, C).

    Call arguments:
        images: (B, H, W, 3), values 0..255; scaled to −1..1 inside.

    Returns:
        A `keras.Model` with features (B, width · 2^(blocks−1)) (twice that with pooling="both").

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.small_cnn(image_size=16, width=8).output_shape
    (None, 32)
    """
    from tf_detreg.datasets.image_set import height_width

    inputs = keras.Input((*height_width(image_size), 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    for block in range(blocks):
        for conv in range(2):
            # The first convolution of each later block halves the size.
            strides = 2 if conv == 0 and block > 0 else 1
            name = f"block{block + 1}_{conv + 1}"
            x = keras.layers.Conv2D(
                width * 2**block, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
            )(x)
            x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
            x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
    return keras.Model(inputs, x if pooling is None else pool(x, pooling), name="small_cnn")

"""What each family of backbones wants its pixels scaled to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_detreg import checks
from tf_detreg.backbones.pixel_range import PixelRange
from tf_detreg.shapes import Shape

# mode: (factor, offset per channel (RGB), whether the channels turn to BGR): x · factor + offset, then the turn.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALINGS = {
    "none": ((1.0,) * 3, (0.0,) * 3, False),
    "unit": ((1 / 255,) * 3, (0.0,) * 3, False),
    "symmetric": ((1 / 127.5,) * 3, (-1.0,) * 3, False),
    "lite": ((1 / 128,) * 3, (-127 / 128,) * 3, False),
    "imagenet": (
        tuple(1 / (255 * s) for s in _IMAGENET_STD),
        tuple(-m / s for m, s in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)),
        False,
    ),
    "caffe": ((1.0,) * 3, (-123.68, -116.779, -103.939), True),
}


@keras.saving.register_keras_serializable("tf_detreg")
class PixelScaling(keras.layers.Layer):
    """`images · factor + offset`, a factor and an offset a channel, from pixels in 0..255.

    Args:
        mode: "none" (the backbone scales by itself), "unit" (0..1), "symmetric" (−1..1), "imagenet" (mean 0,
            deviation 1 of ImageNet), "caffe" (BGR minus ImageNet's mean), "lite" ((x − 127) / 128), "given" (`factor`
            and `offset`). Default "symmetric".
        factor: With "given", what to multiply by, one number a channel.
        offset: With "given", what to add then, one number a channel.

    Call arguments:
        images: (B, H, W, 3), RGB, 0..255. In training, a warning tells of images in 0..1, once.
        training: Whether it is training.

    Example:
    >>> import numpy as np
    >>> from tf_detreg.backbones import PixelScaling
    >>> float(np.max(PixelScaling("symmetric")(np.full((1, 2, 2, 3), 255.0))))
    1.0
    """

    def __init__(
        self,
        mode: str = "symmetric",
        factor: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        for argument, value in (("factor", factor), ("offset", offset)):
            if (mode == "given") != (value is not None) or (value is not None and len(value) != 3):
                raise checks.invalid(argument, "be 3 numbers for mode='given', else None", checks.shown(value))
        self.mode = checks.choice("mode", mode, (*SCALINGS, "given"))
        self.factor, self.offset = (None if x is None else tuple(map(float, x)) for x in (factor, offset))
        self._pixel_range = PixelRange()
        # The look at the pixels' range needs the host, which a step that XLA compiles cannot call. On CPUs XLA pays
        # seldom, and costs seconds at the first step; with a GPU it stays, and nothing is looked at.
        self.supports_jit = bool(tf.config.list_physical_devices("GPU"))

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training:
            self._pixel_range(images)
        factor, offset, flip = (self.factor, self.offset, False) if self.mode == "given" else SCALINGS[self.mode]
        dtype = images.dtype
        images = images * ops.convert_to_tensor(factor, dtype) + ops.convert_to_tensor(offset, dtype)
        return ops.flip(images, axis=-1) if flip else images

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        given = {"factor": self.factor, "offset": self.offset} if self.mode == "given" else {}
        return {**super().get_config(), "mode": self.mode, **given}

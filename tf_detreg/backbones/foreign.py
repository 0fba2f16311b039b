"""Backbones of keras-cv and keras-hub inside models that load without importing those packages by hand."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks, extras
from tf_detreg.shapes import Shape

PACKAGES = ("keras_cv", "keras_hub")


def require(package: str) -> ModuleType:
    """Import keras_cv or keras_hub, or say how to install it."""
    with extras.needed("This backbone"):
        return importlib.import_module(package)


@keras.saving.register_keras_serializable("tf_detreg")
class ForeignBackbone(keras.layers.Layer):
    """A backbone of another package; imports that package when a saved model is loaded.

    Args:
        body: the backbone, a `keras.Model` of keras-cv or keras-hub.
        package: "keras_cv" or "keras_hub".

    Call arguments:
        images: (B, H, W, 3), scaled as the body wants them.
    """

    def __init__(
        self, body: keras.Model, package: str, *, name: str | None = None, dtype: Any = None, trainable: bool = True
    ) -> None:
        super().__init__(name=name or body.name, dtype=dtype, trainable=trainable)
        self.body, self.package = body, checks.choice("package", package, PACKAGES)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.body(images, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape: Shape = self.body.compute_output_shape(input_shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        body = keras.saving.serialize_keras_object(self.body)
        return {**super().get_config(), "body": body, "package": self.package}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if config["package"] in PACKAGES:
            require(config["package"])
        return cls(body=keras.saving.deserialize_keras_object(config.pop("body")), **config)

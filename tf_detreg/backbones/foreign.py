"""Backbones of keras-cv and keras-hub inside models that load without importing those packages by hand."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks, extras
from tf_detreg.backbones.positions import store_positions
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
        body: The backbone, a `keras.Model` of keras-cv or keras-hub.
        package: "keras_cv" or "keras_hub".
        tokens: Of a SigLIP vision encoder, the tokens of the patches in place of what its attention pooling makes of
            them. Default False.

    Call arguments:
        images: (B, H, W, 3), scaled as the body wants them.
    """

    def __init__(
        self,
        body: keras.Model,
        package: str,
        tokens: bool = False,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name or body.name, dtype=dtype, trainable=trainable)
        self.body, self.package, self.tokens = body, checks.choice("package", package, PACKAGES), tokens

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if self.tokens:
            x = self.body.embedding(images, training=training)
            for block in self.body.encoder_layers:
                x = block(x, training=training)
            return self.body.post_layer_norm(x)
        name = _input_name(self.body)
        return self.body(images if name is None else {name: images}, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.tokens:
            # keras-hub's embedding of patches counts a class token that SigLIP does not have.
            return (input_shape[0], self.body.embedding.num_positions, self.body.hidden_dim)
        shape: Shape = self.body.compute_output_shape(input_shape)
        return shape

    def save_own_variables(self, store: Any) -> None:
        store_positions(self.body)  # before the body's layers write theirs
        super().save_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        body = keras.saving.serialize_keras_object(self.body)
        config = {**super().get_config(), "body": body, "package": self.package}
        return {**config, "tokens": True} if self.tokens else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if config["package"] in PACKAGES:
            require(config["package"])
        return cls(body=keras.saving.deserialize_keras_object(config.pop("body")), **config)


def _input_name(body: keras.Model) -> str | None:
    """Return the name under which a model takes its only input in a dictionary, or None if it takes a tensor."""
    try:
        taken = body.input
    except (AttributeError, ValueError):
        return None  # not functional
    return next(iter(taken)) if isinstance(taken, dict) else None

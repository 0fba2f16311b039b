"""Backbones of keras-cv and keras-hub inside models that load without importing those packages by hand."""

from __future__ import annotations

import importlib

import keras

PACKAGES = {
    "keras_cv": "keras-cv (pip install 'tf-detreg[cv]')",
    "keras_hub": "keras-hub (pip install 'tf-detreg[hub]')",
}


def require(package: str):
    """Imports keras_cv or keras_hub, or says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"This backbone needs {PACKAGES[package]}.") from error


@keras.saving.register_keras_serializable("tf_detreg")
class ForeignBackbone(keras.layers.Layer):
    """A backbone of another package; imports that package when a saved model is loaded.

    Args:
        body: the backbone, a `keras.Model` of keras-cv or keras-hub.
        package: "keras_cv" or "keras_hub".

    Call arguments:
        images: (B, H, W, 3), scaled as the body wants them.
    """

    def __init__(self, body: keras.Model, package: str, **kwargs):
        super().__init__(**{"name": body.name, **kwargs})
        if package not in PACKAGES:
            raise ValueError(f"`package` must be one of {', '.join(PACKAGES)}; received {package!r}.")
        self.body, self.package = body, package

    def call(self, images, training=None):
        return self.body(images, training=training)

    def compute_output_shape(self, input_shape):
        return self.body.compute_output_shape(input_shape)

    def get_config(self):
        body = keras.saving.serialize_keras_object(self.body)
        return {**super().get_config(), "body": body, "package": self.package}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if config["package"] in PACKAGES:
            require(config["package"])
        return cls(body=keras.saving.deserialize_keras_object(config.pop("body")), **config)

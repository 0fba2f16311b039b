"""A name or a model → a feature extractor from pixels in 0..255."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from tf_detreg import checks
from tf_detreg.backbones.foreign import PACKAGES, ForeignBackbone
from tf_detreg.backbones.pooling import pool
from tf_detreg.backbones.scaling import PixelScaling
from tf_detreg.backbones.small_cnn import small_cnn
from tf_detreg.images.geometry import Size, height_width

# keras.applications' modules, by what their weights were trained on; the others scale inside the model.
_APPLICATION_SCALING = {
    "resnet": "caffe",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "densenet": "imagenet",
    "inception_resnet_v2": "symmetric",
    "inception_v3": "symmetric",
    "mobilenet": "symmetric",
    "mobilenet_v2": "symmetric",
    "nasnet": "symmetric",
    "resnet_v2": "symmetric",
    "xception": "symmetric",
}


def build(
    backbone: str | keras.Model,
    image_size: Size = 224,
    pooling: str = "avg",
    weights: str | None = None,
    trainable: bool = True,
    scaling: str | None = None,
    freeze_batch_norm: bool = False,
) -> keras.Model:
    """Build a feature extractor.

    Args:
        backbone: "small_cnn"; "efficientnet_lite0"; a model of `keras.applications` ("ResNet50", case and underscores
            do not matter); a keras-cv preset ("cv:mobilenet_v3_small");
            or any `keras.Model` or layer from images to features, to a feature map or to tokens.
        image_size: side or (height, width) of the images. Defaults to 224.
        pooling: "avg" (default), "max", "both" or "gem", for a backbone that ends in a feature map or in tokens
            (B, T, C); of tokens also "first", the class token.
        weights: "imagenet", a weights file, or None, the default, for random weights. A model given as an object keeps
            its own.
        trainable: False freezes all of it. Defaults to True.
        scaling: how pixels in 0..255 are scaled, one of `backbones.SCALINGS`; None picks what belongs to the family,
            which for a model given as an object is "none".
        freeze_batch_norm: keep batch normalisation at its stored statistics, as is usual in metric learning. Defaults
            to False.

    Call arguments:
        images: (B, H, W, 3), values 0..255.

    Returns:
        A `keras.Model` with output (B, F).

    Raises:
        ValueError: for an unknown name, pooling, scaling or output shape.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.build("small_cnn", image_size=32).output_shape
    (None, 128)
    """
    size = height_width(image_size)
    if isinstance(backbone, str):
        body, family = _named(backbone, size, weights)
    elif isinstance(backbone, keras.layers.Layer):
        body, family = _wrapped(backbone), "none"
        if weights is not None:
            raise checks.invalid(
                "weights",
                "be None for a backbone that is not given by name",
                checks.shown(weights),
                "Load them into the model that you pass instead.",
            )
    else:
        raise checks.invalid("backbone", "be a name, a keras.Model or a layer", checks.shown(backbone))

    inputs = keras.Input((*size, 3), name="images")
    features = body(PixelScaling(scaling or family, name="scaling")(inputs))
    if not isinstance(features, keras.KerasTensor):
        kind = f"{len(features)} outputs" if isinstance(features, list | tuple | dict) else type(features).__name__
        raise ValueError(
            f"`backbone` must have one output; received {body.name}, which gives {kind}. Choose one of them: "
            "keras.Model(backbone.inputs, backbone.outputs[-1])."
        )
    if len(features.shape) in (3, 4):
        features = pool(features, pooling)
    if len(features.shape) != 2:
        raise ValueError(
            f"`backbone` must give (B, F), (B, H, W, C) or (B, T, C); received {body.name}, which gives "
            f"{features.shape}."
        )
    model = keras.Model(inputs, features, name=f"{body.name}_features")
    if not trainable:
        model.trainable = False
    if freeze_batch_norm:
        from tf_detreg.backbones.freezing import freeze_batch_norm as freeze

        freeze(model)
    return model


def _wrapped(backbone: keras.layers.Layer) -> keras.layers.Layer:
    """Wrap backbones of keras-cv and keras-hub in a layer that imports their package when a saved model is loaded."""
    package = type(backbone).__module__.split(".")[0]
    return ForeignBackbone(backbone, package) if package in PACKAGES else backbone


def _named(name: str, size: tuple[int, int], weights: str | None) -> tuple[keras.Model, str]:
    key = name.lower().replace("_", "").replace("-", "")
    if key == "smallcnn":
        if weights is not None:
            raise checks.invalid(
                "weights", "be None for small_cnn, which is trained from scratch", checks.shown(weights)
            )
        return small_cnn(size, pooling=None), "none"
    if key == "efficientnetlite0":
        from tf_detreg.backbones.efficientnet_lite0 import efficientnet_lite0

        return efficientnet_lite0(size, weights), "lite"
    if ":" in name:
        from tf_detreg.backbones.presets import from_preset

        return from_preset(name, weights), "none"
    for candidate, maker in _applications().items():
        if candidate.lower() == key:
            module = maker.__module__.rsplit(".", 1)[-1]
            return maker(include_top=False, weights=weights, input_shape=(*size, 3)), _APPLICATION_SCALING.get(
                module, "none"
            )
    known = ", ".join(["small_cnn", "efficientnet_lite0", *_applications()])
    raise checks.invalid("backbone", f"be a keras.Model, cv:PRESET or one of {known}", checks.shown(name))


def _applications() -> dict[str, Any]:
    return {k: v for k, v in vars(keras.applications).items() if inspect.isfunction(v) and k[0].isupper()}

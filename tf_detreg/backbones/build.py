"""A name or a model → a feature extractor from pixels in 0..255."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable
from typing import Any

import keras

from tf_detreg import checks
from tf_detreg.backbones import families, hub
from tf_detreg.backbones.drop_path import with_drop_path
from tf_detreg.backbones.fine_tuning import restrict
from tf_detreg.backbones.foreign import PACKAGES, ForeignBackbone
from tf_detreg.backbones.pooling import pool
from tf_detreg.backbones.preset_files import is_preset
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


@dataclasses.dataclass(frozen=True)
class _Body:
    """A backbone before pooling, and what belongs to it.

    Attributes:
        layer: From scaled images to features, a feature map or tokens.
        scaling: Arguments of `PixelScaling`.
        pooling: What suits it.
        prefix: Of tokens, how many stand before those of the patches; None if that is not known.
        projection: Layers from a class token to the space that images and texts share.
    """

    layer: keras.layers.Layer
    scaling: dict[str, Any]
    pooling: str = "avg"
    prefix: int | None = None
    projection: tuple[keras.layers.Layer, ...] = ()

    def features(self, images: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
        """Return what the layer makes of scaled images, pooled where it is a feature map or tokens."""
        layer = self.layer
        if pooling == "projection":
            if not self.projection:
                raise ValueError(f"`pooling`='projection' needs CLIP's projection, which {layer.name} does not have.")
            x = pool(layer(images), "class", self.prefix)
            for following in self.projection:
                x = following(x)
            return x
        if pooling not in ("attention", self.pooling) and self.pooling == "attention":
            layer = ForeignBackbone(layer.body, layer.package, tokens=True, name=layer.name)
        x = layer(images)
        if not isinstance(x, keras.KerasTensor):
            kind = f"{len(x)} outputs" if isinstance(x, list | tuple | dict) else type(x).__name__
            raise ValueError(
                f"`backbone` must have one output; received {layer.name}, which gives {kind}. Choose one of them: "
                "keras.Model(backbone.inputs, backbone.outputs[-1])."
            )
        if len(x.shape) in (3, 4):
            x = pool(x, pooling, self.prefix)
            if pooling == "class" and len(self.projection) > 1:  # a normalization before the projection
                x = self.projection[0](x)
        if len(x.shape) != 2:
            raise ValueError(
                f"`backbone` must give (B, F), (B, H, W, C) or (B, T, C); received {layer.name}, which gives {x.shape}."
            )
        return x


def build(
    backbone: str | keras.Model,
    image_size: Size | None = None,
    pooling: str | None = None,
    weights: str | None = None,
    trainable: bool = True,
    scaling: str | None = None,
    freeze_batch_norm: bool = False,
    freeze_until: str | int | None = None,
    lora_rank: int | None = None,
    drop_path: float | None = None,
) -> keras.Model:
    """Build a feature extractor.

    Args:
        backbone: "small_cnn"; "efficientnet_lite0"; a model of `keras.applications` ("ResNet50", case and underscores
            do not matter); a keras-hub preset ("hub:dinov2_small", a folder that `save_to_preset` wrote, "hf://…" or
            "kaggle://…"), of which the vision tower is taken; a keras-cv preset ("cv:mobilenet_v3_small");
            or any `keras.Model` or layer from images to features, to a feature map or to tokens.
        image_size: Side or (height, width) of the images. Default None: the size that a keras-hub preset was made
            for, else 224. At another size its position embeddings are interpolated.
        pooling: "avg", "max", "both" or "gem", for a backbone that ends in a feature map or in tokens (B, T, C); of
            tokens also "class" (or "first"), the class token, "patches", the mean of the others, and "class+patches";
            "attention" of SigLIP; "projection" of CLIP, the space that images and texts share. Default None: of a
            preset what it was trained with, else "avg".
        weights: "imagenet", a weights file, or None, the default, for random weights; of a keras-hub preset "random",
            or None for the preset's. A model given as an object keeps its weights.
        trainable: False freezes all of it. Default True.
        scaling: How pixels in 0..255 are scaled, one of `backbones.SCALINGS`; None picks what belongs to the family or
            what the preset's image converter does, which for a model given as an object is "none".
        freeze_batch_norm: Keep batch normalization at its stored statistics, as is usual in metric learning. Default
            False.
        freeze_until: The lowest block that trains, by its name in `backbones.blocks`, or how many blocks are frozen.
            Default None: all train.
        lora_rank: Train low-rank factors of this rank beside the frozen kernels of dense layers, and nothing else of
            the backbone. Default None.
        drop_path: Rate at which the last block is left out in training, see `drop_path.with_drop_path`. Default None:
            what the backbone has by itself.

    Call arguments:
        images: (B, H, W, 3), values 0..255.

    Returns:
        A `keras.Model` with output (B, F).

    Raises:
        ValueError: For an unknown name, pooling, scaling or output shape, or a size that the backbone does not take.
        ImportError: If the package of a preset is not installed.
        ConnectionError: If a preset must be downloaded and the other side does not answer.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.build("small_cnn", image_size=32).output_shape
    (None, 128)
    """
    size = None if image_size is None else height_width(image_size)
    if isinstance(backbone, str):
        size = size or preset_image_size(backbone) or (224, 224)
        body = _named(backbone, size, weights, scaling)
    elif isinstance(backbone, keras.layers.Layer):
        size = size or (224, 224)
        body = _wrapped(backbone, size)
        if weights is not None:
            raise checks.invalid(
                "weights",
                "be None for a backbone that is not given by name",
                checks.shown(weights),
                "Load them into the model that you pass instead.",
            )
    else:
        raise checks.invalid("backbone", "be a name, a keras.Model or a layer", checks.shown(backbone))

    if drop_path is not None:
        body = dataclasses.replace(body, layer=with_drop_path(body.layer, drop_path))
    inputs = keras.Input((*size, 3), name="images")
    scaled = PixelScaling(**({"mode": scaling} if scaling else body.scaling), name="scaling")(inputs)
    features = body.features(scaled, pooling or body.pooling)
    model = keras.Model(inputs, features, name=f"{body.layer.name}_features")
    return restrict(model, trainable, freeze_batch_norm, freeze_until, lora_rank)


def preset_image_size(backbone: str) -> tuple[int, int] | None:
    """Return the image size (height, width) that a keras-hub preset was made for; None for any other backbone.

    Args:
        backbone: The name of a backbone, as `build` takes it.

    Raises:
        ImportError, ValueError, ConnectionError: As `build`, where a preset cannot be read.

    Example:
    >>> preset_image_size("ResNet50") is None
    True
    """
    return hub.image_size(backbone) if is_preset(backbone) else None


def _wrapped(backbone: keras.layers.Layer, size: tuple[int, int]) -> _Body:
    """Wrap backbones of keras-cv and keras-hub in a layer that imports their package when a saved model is loaded."""
    package = type(backbone).__module__.split(".")[0]
    if package not in PACKAGES:
        return _Body(backbone, {"mode": "none"})
    whole, backbone = backbone, families.vision_tower(backbone)
    family = families.FAMILIES.get(type(backbone).__name__)
    if package != "keras_hub" or family is None:
        return _Body(ForeignBackbone(backbone, package), {"mode": "none"})
    config = backbone.get_config()
    made_for = families.made_for(config)
    if made_for not in (None, size):
        raise ValueError(
            f"`image_size` must be {made_for[0]} × {made_for[1]}, as {backbone.name} was built; received {size[0]} × "
            f"{size[1]}. A preset given by name (hub:…) is built for any size that its patches divide."
        )
    return _Body(
        ForeignBackbone(backbone, package),
        {"mode": "none"},
        "attention" if family.attention else "avg",
        family.prefix(config) if family.prefix(config) or family.attention else None,
        tuple(families.projection(whole)),
    )


def _of_hub(name: str, size: tuple[int, int], weights: str | None, scaling: str | None) -> _Body:
    loaded = hub.load(name, size, weights)
    if loaded.scaling is None and scaling is None:
        raise ValueError(
            f"{name} has no image_converter.json, so that it is not known how its pixels are scaled: give `scaling`, "
            "one of none, unit, symmetric, imagenet and caffe, or save the image converter into the folder too."
        )
    config = loaded.body.get_config()
    family = families.FAMILIES[type(loaded.body).__name__]
    # The feature cache goes by names: one that Keras counts up would find nothing again.
    label = config.get("name") or type(loaded.body).__name__.lower()
    return _Body(
        ForeignBackbone(loaded.body, "keras_hub", name=label),
        loaded.scaling or {},
        family.pooling(config),
        family.prefix(config),
        tuple(loaded.projection),
    )


def _small_cnn(size: tuple[int, int], weights: str | None) -> tuple[keras.Model, str]:
    if weights is not None:
        raise checks.invalid("weights", "be None for small_cnn, which is trained from scratch", checks.shown(weights))
    return small_cnn(size, pooling=None), "none"


def _efficientnet_lite0(size: tuple[int, int], weights: str | None) -> tuple[keras.Model, str]:
    from tf_detreg.backbones.efficientnet_lite0 import efficientnet_lite0

    return efficientnet_lite0(size, weights), "lite"


NAMED: dict[str, Callable[[tuple[int, int], str | None], tuple[keras.Model, str]]] = {
    "small_cnn": _small_cnn,
    "efficientnet_lite0": _efficientnet_lite0,
}
"""Backbones of this package: from (height, width) and weights to the model and the name of its pixel scaling."""


def _named(name: str, size: tuple[int, int], weights: str | None, scaling: str | None) -> _Body:
    key = name.lower().replace("_", "").replace("-", "")
    for own, build_own in NAMED.items():
        if own.replace("_", "") == key:
            model, scaling_of_it = build_own(size, weights)
            return _Body(model, {"mode": scaling_of_it})
    if name.startswith("cv:"):
        from tf_detreg.backbones.keras_cv import from_preset

        return _Body(from_preset(name, weights), {"mode": "none"})
    for candidate, maker in _applications().items():
        if candidate.lower() == key:
            module = maker.__module__.rsplit(".", 1)[-1]
            body = maker(include_top=False, weights=weights, input_shape=(*size, 3))
            return _Body(body, {"mode": _APPLICATION_SCALING.get(module, "none")})
    # A folder may have any name, so that the names above come first.
    if is_preset(name) or ":" in name or name.startswith((".", "/", "~")):
        return _of_hub(name, size, weights, scaling)
    known = [*NAMED, *_applications()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise checks.invalid(
        "backbone",
        "be a keras.Model, hub:PRESET, a preset's folder, cv:PRESET or the name of a network",
        checks.shown(name),
        f"{'Near' if near else 'Known'} are: {', '.join(near or known)}.",
    )


def _applications() -> dict[str, Any]:
    return {k: v for k, v in vars(keras.applications).items() if inspect.isfunction(v) and k[0].isupper()}

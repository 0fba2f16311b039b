"""What is known of keras-hub's image models: which tokens they end in, and which image sizes they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from tf_detreg import checks

Config = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture of keras-hub.

    Args:
        class_tokens: Tokens before the patches that stand for the whole image; None for a model that ends in a feature
            map or in tokens of patches alone. Registers, which a model's configuration counts, come on top. Default
            None.
        square: Whether images must be square. Default False.
        attention: Whether the model ends in attention pooling, a vector an image. Default False.
        multiple: What height and width must be a multiple of, beside the side of a patch. Default 1.
        fixed: Whether it takes no other size than that of the preset. Default False.
    """

    class_tokens: int | None = None
    square: bool = False
    attention: bool = False
    multiple: int = 1
    fixed: bool = False

    def prefix(self, config: Config) -> int:
        """Return how many tokens stand before those of the patches."""
        if self.class_tokens is None or not config.get("use_class_token", True):
            return 0
        return self.class_tokens + int(config.get("num_register_tokens") or 0)

    def pooling(self, config: Config) -> str:
        """Return the pooling that the model was trained with."""
        if self.attention:
            return "attention"
        return "class" if self.prefix(config) else "avg"


# By the class of the model that sees images. HGNetV2 (several feature maps), and detectors, segmenters, video and
# language models are not feature extractors of an image.
FAMILIES = {
    "CLIPVisionEncoder": Family(class_tokens=1, square=True),
    "CSPNetBackbone": Family(),
    "DINOV2Backbone": Family(class_tokens=1, square=True),
    "DINOV3Backbone": Family(class_tokens=1, square=True),
    "DeiTBackbone": Family(class_tokens=2),  # one of them from distillation
    "DenseNetBackbone": Family(),
    "EfficientNetBackbone": Family(),
    "MetaCLIP2VisionEncoder": Family(class_tokens=1, square=True),
    "MiTBackbone": Family(square=True, multiple=32),
    "MobileNetBackbone": Family(),
    "MobileNetV5Backbone": Family(),
    "ResNetBackbone": Family(),
    "SigLIPVisionEncoder": Family(square=True, attention=True),
    "SwinTransformerBackbone": Family(fixed=True),
    "VGGBackbone": Family(),
    "ViTBackbone": Family(class_tokens=1),
    "XceptionBackbone": Family(),
}

# Models of images and texts, and the class of the tower that sees images.
TWO_TOWERS = {
    "CLIPBackbone": "CLIPVisionEncoder",
    "MetaCLIP2Backbone": "MetaCLIP2VisionEncoder",
    "SigLIPBackbone": "SigLIPVisionEncoder",
}


def vision_class(name: str) -> str | None:
    """Return the class of the model that sees images inside a backbone of keras-hub, or None if there is none.

    Example:
    >>> vision_class("CLIPBackbone"), vision_class("BertBackbone")
    ('CLIPVisionEncoder', None)
    """
    name = TWO_TOWERS.get(name, name)
    return name if name in FAMILIES else None


def vision_config(name: str, config: Config) -> Config:
    """Return the configuration of the model that sees images, from that of a whole backbone of class `name`."""
    inner: Config = config["vision_encoder"]["config"] if name in TWO_TOWERS else config
    return inner


def vision_tower(backbone: keras.Model) -> keras.Model:
    """Return the part of a backbone that sees images: all of it but for models of images and texts."""
    tower: keras.Model = backbone.vision_encoder if type(backbone).__name__ in TWO_TOWERS else backbone
    return tower


def projection(backbone: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers from a class token to the space that images and texts share, or none."""
    names = ("vision_post_layer_norm", "vision_projection")
    return [getattr(backbone, name) for name in names if hasattr(backbone, name)]


def patch(config: Config) -> tuple[int, int] | None:
    """Return the height and width of a patch, or None for a model that has none."""
    size = config.get("patch_size")
    if size is None:
        return None
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def made_for(config: Config) -> tuple[int, int] | None:
    """Return the image size that a model was made for, or None if it takes any."""
    shape = config.get("image_shape") or config.get("input_shape")
    return None if not shape or shape[0] is None else (int(shape[0]), int(shape[1]))


def check_size(label: str, kind: str, config: Config, size: tuple[int, int]) -> None:
    """Refuse an image size that a model cannot take.

    Args:
        label: How the model is named in the message.
        kind: Class of the model, one of `FAMILIES`.
        config: Its configuration.
        size: Height and width of the images.

    Raises:
        ValueError: If the size is not allowed, with the sizes that are.
    """
    family, trained, side = FAMILIES[kind], made_for(config), patch(config)
    received = f"{size[0]} × {size[1]}"
    if family.square and size[0] != size[1]:
        raise checks.invalid("image_size", f"be square for {label}", received)
    if family.fixed and trained is not None and size != trained:
        allowed = f"be {trained[0]} × {trained[1]} for {label}, which takes no other"
        raise checks.invalid("image_size", allowed, received)
    if side is None and family.multiple > 1:
        side = (family.multiple, family.multiple)
    if side is not None and (size[0] % side[0] or size[1] % side[1]):
        down = [max(1, s // p) * p for s, p in zip(size, side, strict=True)]
        up = [-(-s // p) * p for s, p in zip(size, side, strict=True)]
        raise checks.invalid(
            "image_size",
            f"be a multiple of {side[0]} × {side[1]} for {label}, whose patches divide the image, such as "
            f"{down[0]} × {down[1]} or {up[0]} × {up[1]}",
            received,
        )

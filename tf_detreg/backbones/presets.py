"""Backbones of keras-hub ("hub:…") and keras-cv ("cv:…") by the name of their preset."""

from __future__ import annotations

import keras

from tf_detreg.backbones.foreign import ForeignBackbone, require

# The first part of a keras-cv preset that keeps its scaling outside is scaled to 0..1 by keras-cv's own examples.
_PACKAGES = {"hub": "keras_hub", "cv": "keras_cv"}


def from_preset(name: str, size: tuple[int, int], weights: str | None) -> tuple[keras.layers.Layer, str]:
    """A preset backbone and the scaling of its input.

    keras-cv's backbones scale inside (`include_rescaling`). keras-hub keeps scaling in its image converters; the one
    that belongs to the preset is put in front.

    Args:
        name: "hub:PRESET" or "cv:PRESET".
        size: (height, width).
        weights: "imagenet" (or anything else that is not None) loads the preset's weights, None draws random ones.

    Raises:
        ImportError: without the package.
        ValueError: for another prefix.
    """
    prefix, preset = name.split(":", 1)
    if prefix not in _PACKAGES:
        raise ValueError(f"A preset is named hub:PRESET or cv:PRESET; received {name!r}.")
    package = require(_PACKAGES[prefix])
    if prefix == "cv":
        body = package.models.backbones.backbone.Backbone.from_preset(preset, load_weights=weights is not None)
        return ForeignBackbone(body, "keras_cv"), "none"
    body = package.models.Backbone.from_preset(preset, load_weights=weights is not None, image_shape=(*size, 3))
    return ForeignBackbone(body, "keras_hub"), "none"

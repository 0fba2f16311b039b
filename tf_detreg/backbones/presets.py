"""Backbones of keras-cv by the name of their preset."""

from __future__ import annotations

from tf_detreg.backbones.foreign import ForeignBackbone, require


def from_preset(name: str, weights: str | None) -> ForeignBackbone:
    """A preset backbone of keras-cv, which scales its input inside.

    Args:
        name: "cv:PRESET".
        weights: anything that is not None loads the preset's weights, None draws random ones.

    Raises:
        ImportError: without keras-cv.
        ValueError: for another prefix.
    """
    prefix, preset = name.split(":", 1)
    if prefix != "cv":
        raise ValueError(
            f"A preset is named cv:PRESET; received {name!r}. Load one of keras-hub yourself "
            "(keras_hub.models.Backbone.from_preset) and pass the model, with the `scaling` that its converter applies."
        )
    backbone = require("keras_cv").models.Backbone
    return ForeignBackbone(backbone.from_preset(preset, load_weights=weights is not None), "keras_cv")

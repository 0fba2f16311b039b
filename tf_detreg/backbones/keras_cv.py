"""Backbones of keras-cv by the name of their preset."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import keras

from tf_detreg import checks
from tf_detreg.backbones.foreign import ForeignBackbone, require


def from_preset(name: str, weights: str | None) -> ForeignBackbone:
    """Return a preset backbone of keras-cv, which scales its input inside.

    Args:
        name: "cv:PRESET", such as "cv:mobilenet_v3_small".
        weights: None draws random ones; anything else loads the preset's. keras-cv downloads both the description of
            the network and the weights from Kaggle, or reads them from Kaggle's cache.

    Raises:
        ImportError: Without keras-cv.
        ValueError: For another prefix, or a preset that keras-cv does not know.
        ConnectionError: If Kaggle, where keras-cv keeps its presets, does not answer.
    """
    prefix, preset = name.split(":", 1)
    if prefix != "cv":
        raise checks.invalid("name", "be cv:PRESET, for a preset of keras-cv", checks.shown(name))
    classes = list(_below(require("keras_cv").models.Backbone))
    # The base class knows no preset: each family has its own.
    for kind in classes:
        if preset in kind.presets:
            return ForeignBackbone(_load(kind, preset, weights is not None), "keras_cv")
    known = sorted({known for kind in classes for known in kind.presets})
    near = difflib.get_close_matches(preset, known, n=3) or known[:3]
    raise ValueError(f"keras-cv has no preset {preset!r}. It has {len(known)}, such as {', '.join(near)}.")


def _load(kind: Any, preset: str, weights: bool) -> keras.Model:
    try:
        return kind.from_preset(preset, load_weights=weights)
    except OSError as error:
        raise ConnectionError(f"keras-cv loads its preset {preset!r} from Kaggle, which failed: {error}") from error


def _below(kind: Any) -> Iterator[Any]:
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)

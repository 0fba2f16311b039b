"""Backbones of keras-hub by the name of their preset, from a folder, from Hugging Face or from Kaggle."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import os
from collections.abc import Iterator
from typing import Any

import keras

from tf_detreg import checks
from tf_detreg.backbones import families
from tf_detreg.backbones.foreign import require
from tf_detreg.backbones.positions import at_size
from tf_detreg.backbones.preset_files import Source, one_sentence, source

logger = logging.getLogger(__name__)

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is known of a preset before it is downloaded.

    Attributes:
        name: As `backbones.build` takes it, such as "hub:dinov2_small".
        architecture: Class of the model that sees images, such as "DINOV2Backbone"; "" if its files must tell.
        parameters: How many there are, of both towers where there are two; None if it is not known.
        description: A sentence of keras-hub, or "".
    """

    name: str
    architecture: str
    parameters: int | None
    description: str = ""

    @property
    def megabytes(self) -> float | None:
        """Size of the float32 weights in MB (10⁶ bytes), which is about that of the download; None if not known."""
        return None if self.parameters is None else 4 * self.parameters / 1e6

    def __str__(self) -> str:
        if self.parameters is None:
            return f"{self.name}: of unknown size"
        return f"{self.name}: {self.parameters / 1e6:,.1f} M parameters, about {self.megabytes:,.0f} MB"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A preset's model that sees images, and what belongs to it.

    Attributes:
        body: The model.
        scaling: Arguments of `PixelScaling`, or None if the preset does not say how pixels are scaled.
        projection: Layers from a class token to the space that images and texts share; empty if there are none.
    """

    body: keras.Model
    scaling: dict[str, Any] | None
    projection: list[keras.layers.Layer]


def presets(contains: str = "") -> list[Preset]:
    """Return the image presets that keras-hub knows by name, smallest first; nothing is downloaded.

    Args:
        contains: Part of the name, such as "dinov2". Default "", for all.

    Raises:
        ImportError: Without keras-hub.

    Example:
    >>> [preset.name for preset in presets("dinov2_small")]
    ['hub:dinov2_small']
    """
    found = [
        Preset(f"hub:{name}", seen, metadata.get("params"), metadata.get("description", ""))
        for name, (kind, metadata) in _builtin().items()
        if contains in name and (seen := families.vision_class(kind)) is not None
    ]
    return sorted(found, key=lambda preset: (preset.parameters or 0, preset.name))


def describe(name: str) -> Preset:
    """Return what is known of a preset without downloading it.

    Args:
        name: "hub:NAME", a folder, "hf://…" or "kaggle://…", as for `backbones.build`.

    Raises:
        ImportError: Without keras-hub.
        ValueError: If there is no such preset, or it takes no images.

    Example:
    >>> print(describe("hub:dinov2_small"))
    hub:dinov2_small: 22.6 M parameters, about 90 MB
    """
    return _describe(_source(name))


def load(name: str, size: Size | None = None, weights: str | None = None) -> Loaded:
    """Load a preset.

    Args:
        name: "hub:NAME", a folder, "hf://…" or "kaggle://…", as for `backbones.build`.
        size: Height and width of the images; None, the default, for the preset's.
        weights: "random" draws random ones; None, "preset" or "imagenet" loads the preset's. Default None.

    Raises:
        ImportError: Without keras-hub.
        ValueError: If there is no such preset, it takes no images, does not fit this keras-hub, is incomplete, or does
            not take this size.
        ConnectionError: If it must be downloaded and the other side does not answer.
    """
    if weights not in (None, "preset", "imagenet", "random"):
        raise checks.invalid("weights", f"be None, 'preset' or 'random' for {name}", checks.shown(weights))
    found = _source(name)
    _announce(found)
    config = _config(found)
    if "registered_name" in config:
        whole = type_name(config)
        seen = families.vision_class(whole)
        if seen is not None and size is not None:
            families.check_size(name, seen, families.vision_config(whole, config["config"]), size)
    if weights != "random":
        found.require_weights(config)
    with one_sentence(found):
        backbone = require("keras_hub").models.Backbone.from_preset(found.handle, load_weights=weights != "random")
    body = families.vision_tower(backbone)
    _check_kind(name, type(backbone).__name__)
    if size is not None:
        families.check_size(name, type(body).__name__, body.get_config(), size)
        body = at_size(body, size)
    return Loaded(body, _scaling(found, config), families.projection(backbone))


def image_size(name: str) -> Size | None:
    """Return the image size that a preset was made for, (height, width), or None if its files do not say.

    Only its small files are read, or downloaded.
    """
    found = _source(name)
    _announce(found)
    config = _config(found)
    converter = _converter(found, config)
    size = getattr(converter, "image_size", None)
    if size is not None and size[0] is not None:
        return (int(size[0]), int(size[1]))
    if "registered_name" not in config or families.vision_class(type_name(config)) is None:
        return None
    return families.made_for(families.vision_config(type_name(config), config["config"]))


def type_name(config: dict[str, Any]) -> str:
    """Return the class that a preset's configuration names."""
    return str(config["registered_name"]).rpartition(">")[2]


def _source(name: str) -> Source:
    require("keras_hub")
    builtin = _builtin()
    found = source(name, {key: str(handle) for key, handle in _handles().items()})
    if found is not None:
        _check_kind(name, builtin[found.handle][0] if found.handle in builtin else None)
        return found
    known = [preset.name.removeprefix("hub:") for preset in presets()]
    asked = name.removeprefix("hub:")
    near = difflib.get_close_matches(asked, known, n=3)
    near = near or [key for key in known if len(asked) > 2 and asked[:5] in key][:3]
    hint = f"Near are: {', '.join(near)}" if near else f"No folder of that name is seen from {os.getcwd()}"
    raise checks.invalid(
        "backbone",
        "be a preset of keras-hub or the folder of one",
        checks.shown(name),
        f"{hint}; there are {len(known)} presets of images, see `backbones.presets()`.",
    )


def _check_kind(name: str, kind: str | None) -> None:
    if kind is not None and families.vision_class(kind) is None:
        known = sorted(key.removesuffix("Backbone").removesuffix("VisionEncoder") for key in families.FAMILIES)
        raise checks.invalid(
            "backbone",
            "turn one image into features",
            f"{name}, which is a {kind} and does not",
            f"Architectures that do: {', '.join(known)}.",
        )


def _describe(found: Source) -> Preset:
    builtin = _builtin()
    if found.handle in builtin:
        kind, metadata = builtin[found.handle]
        seen = families.vision_class(kind) or ""
        return Preset(found.name, seen, metadata.get("params"), metadata.get("description", ""))
    config = None if found.remote else _config(found)
    known = config is not None and "registered_name" in config
    metadata = {} if found.remote else found.json("metadata.json") or {}
    seen = (families.vision_class(type_name(config)) if known and config is not None else None) or ""
    return Preset(found.name, seen, metadata.get("parameter_count"))


def _announce(found: Source) -> None:
    """Log the size of a preset before any of its files is downloaded."""
    if found.remote:
        _log_once(f"{_describe(found)}, from {found.site} unless it is in the cache.")


@functools.cache
def _log_once(text: str) -> None:
    logger.info("%s", text)


def _config(found: Source) -> dict[str, Any]:
    config = found.json("config.json")
    if config is None:
        raise ValueError(
            f"{found.name} is no preset: it has no config.json. `save_to_preset` of a keras-hub model writes one."
        )
    if "registered_name" not in config:
        if not ({"model_type", "architecture"} & set(config)):
            raise ValueError(
                f"{found.name} is no preset of keras-hub, transformers or timm: its config.json names no model."
            )
        return config
    # Of these, none but the classes that keras-hub registers are made, and no code of a file is run.
    if keras.saving.get_registered_object(config["registered_name"]) is None:
        raise ValueError(
            f"{found.name} was saved as {config['registered_name']!r}, which keras-hub {_version()} does not have"
            f"{found.saved_by()}: install the version that wrote it, or save it again with this one."
        )
    _check_kind(found.name, type_name(config))
    return config


def _converter(found: Source, config: dict[str, Any]) -> Any:
    """Return the image converter of a preset, or None."""
    hub = require("keras_hub")
    with one_sentence(found):
        if "registered_name" not in config:
            return hub.layers.ImageConverter.from_preset(found.handle)
        values = found.json("image_converter.json")
        converter = None if values is None else keras.saving.deserialize_keras_object(values)
    if converter is not None and not isinstance(converter, hub.layers.ImageConverter):
        raise ValueError(f"image_converter.json of {found.name} holds no image converter of keras-hub.")
    return converter


def _scaling(found: Source, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return arguments of `PixelScaling` that do what the preset's image converter does to pixels in 0..255."""
    converter = _converter(found, config)
    if converter is None:
        return None
    factor, offset = (
        [float(value)] * 3 if isinstance(value, int | float) else list(map(float, value))
        for value in (
            1.0 if converter.scale is None else converter.scale,
            0.0 if converter.offset is None else converter.offset,
        )
    )
    return {"mode": "given", "factor": factor, "offset": offset}


def _version() -> str:
    return str(require("keras_hub").__version__)


def _builtin() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the class and the metadata of each preset that keras-hub knows by name."""
    base = require("keras_hub").models.Backbone
    found = {name: ("Backbone", entry["metadata"]) for name, entry in base.presets.items()}
    for kind in _below(base):
        # A family's class lists its presets; one that others derive from lists theirs too, and comes before them.
        found |= {name: (kind.__name__, entry["metadata"]) for name, entry in kind.presets.items()}
    return found


def _handles() -> dict[str, str]:
    return {name: entry["kaggle_handle"] for name, entry in require("keras_hub").models.Backbone.presets.items()}


def _below(kind: Any) -> Iterator[Any]:
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)

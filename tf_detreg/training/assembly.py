"""From a run's configuration to data, embedder, model and optimizer."""

import difflib
import inspect
import logging
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np

from tf_detreg import checks, heads, losses, miners, regularizers
from tf_detreg.images.geometry import height_width
from tf_detreg.training import texts
from tf_detreg.training.config import Part, RunConfig, named
from tf_detreg.training.interpolation import Interpolation
from tf_detreg.training.metric_model import MetricModel
from tf_detreg.training.optimizers import optimizer
from tf_detreg.training.parts import split_embedder

if TYPE_CHECKING:
    from types import ModuleType

    from tf_detreg.datasets import ImageSet, Splits
    from tf_detreg.training.optimizers import GroupedOptimizer

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")

# The rate of `training.optimizer` is made for fine-tuning. With it, and with ten times it, a net from scratch stays far
# behind, and at the rate it wants unclipped gradients throw it back: see "End to end: does the learning rate decide?"
# and "why does a second linear head help?" in docs/results.md.
FROM_SCRATCH = {"backbone_rate": 1e-2, "clipnorm": 1.0}
# With a regularizer whose gradient one sample can make of any size, see `Regularizer.steep`.
STEEP = {"clipnorm": 1.0}
# What `backbones.build` takes to freeze parts of any backbone, small_cnn too.
_LIMITS = ("trainable", "freeze_batch_norm", "freeze_until", "lora_rank")
_BEFORE_THE_FALL = ("warmup", "backbone_delay")
# What a name in a field may stand for.
_KINDS: dict[str, tuple[type, ...]] = {
    "head": (heads.Head, heads.Dueling),
    "rival": (heads.Head,),
    "loss": (keras.losses.Loss, keras.layers.Layer),
    "loss.miner": (miners.Miner,),
    "regularizers": (regularizers.Regularizer,),
    "augment": (keras.layers.Layer,),
}
# Classes that are there to be made others of.
_BASES = (heads.FlowHead, losses.PairLoss, losses.ProxyLoss, miners.Miner, regularizers.Regularizer, keras.layers.Layer)


def load_splits(config: RunConfig) -> "Splits":
    """Return the data that a configuration names, as `datasets.Splits`.

    Raises:
        ValueError: If it is neither a known loader nor a folder.
    """
    from tf_detreg import datasets

    options = dict(config.data)
    name = options.pop("name")
    loader = getattr(datasets, name, None) if name in datasets.LOADERS else None
    takes = inspect.signature(loader).parameters if loader else {}
    address = next(iter(takes), "path")  # what a loader's first argument is called; in a table, `path` for all
    path = options.pop("path", options.pop(address, None) if address == "directory" else None if loader else name)
    if loader is None and not pathlib.Path(path).exists():
        raise ValueError(
            f"`data` must be a data set (glyphs, digits, …) or a folder; received {name!r}, seen from {os.getcwd()}. "
            "Give a "
            "folder that holds one folder of images a class, a benchmark's folder as cub:FOLDER, or tfds:NAME."
        )
    if loader is None:
        loader = datasets.csv if pathlib.Path(path).suffix == ".csv" else datasets.folder
    elif path is None and address in ("path", "directory"):
        raise ValueError(f'`data` must say where {name} is; received no path. Give {{name = "{name}", path = "…"}}.')
    size = config.image_size
    if size is None and "image_size" not in options and "image_size" in inspect.signature(loader).parameters:
        size = preset_size(config)
    if size is not None:
        options["image_size"] = size
    if path is not None and address not in ("path", "directory", "dataset"):
        raise ValueError(f"`data`: {name} takes no path; received {path!r}. Leave it out, or name a loader of files.")
    given = [] if path is None else [path]
    _check_arguments("data", name, loader, *given, **options)
    splits: Splits = loader(*given, **options)
    return splits


def preset_size(config: RunConfig) -> int | tuple[int, int] | None:
    """Return the image size that a configuration's preset of keras-hub was made for; None for other backbones."""
    from tf_detreg import backbones

    size = backbones.preset_image_size(config.backbone["name"])
    return None if size is None else size[0] if size[0] == size[1] else size


def check_batches(config: RunConfig, train: "ImageSet") -> None:
    """Make sure that the batches of a configuration hold what its loss compares.

    Args:
        config: The configuration.
        train: The training set. A class with a single image repeats it, which is noted if all do, unchanged.

    Raises:
        ValueError: For a pair loss and batches without two images of a class, or without two classes. A memory has them
            from earlier batches, a proxy loss from its proxies.
    """
    name = config.loss["name"]
    if not issubclass(_find("loss", losses, name), losses.PairLoss | losses.Margin):
        return
    lacks = {"images": "no two images of one class", "classes": "images of one class only"}
    if config.classes == 0:
        # Shuffled batches hold pairs by chance.
        lacks = {"images": "one image"}
    for field, lack in lacks.items():
        if getattr(config, field) < 2:
            raise ValueError(
                f"`{field}` must be 2 or more for loss={name!r}, which compares the images of a batch with each other; "
                f"received 1, where a batch holds {lack}. Raise it, or take a proxy loss such as 'ProxyAnchor'."
            )
    if not config.augment and config.crop is None and np.bincount(train.labels).max() < 2:
        logger.warning(
            "No class of %s has two images: a batch repeats each, and loss=%r only pushes them apart. Give crop or "
            "augment, so that the copies differ.",
            train.name,
            name,
        )


def build_embedder(config: RunConfig, image_size: int | tuple[int, int]) -> keras.Model:
    """Return backbone and main head as an untrained `keras.Sequential`, images → unit vectors."""
    size = height_width(image_size)
    backbone = build_backbone(config, size)
    return keras.Sequential([keras.Input((*size, 3)), backbone, _make("head", heads, config.head)], name="embedder")


def build_backbone(config: RunConfig, image_size: tuple[int, int]) -> keras.Model:
    """Return the backbone of a configuration; a weights file is looked for as data are, see `datasets.find_data`."""
    from tf_detreg import backbones
    from tf_detreg.datasets import find_data

    options = dict(config.backbone)
    name = options.pop("name")
    height, width = image_size
    square = height if height == width else (height, width)
    if str(options.get("weights", "")).endswith(".npz"):
        options["weights"] = str(find_data(options["weights"]))
    if name == "small_cnn":
        limits = {key: options.pop(key) for key in _LIMITS if key in options}
        _check_arguments("backbone", name, backbones.small_cnn, **options)
        return backbones.restrict(backbones.small_cnn(square, **options), **limits)
    _check_arguments("backbone", name, backbones.build, name, square, **options)
    return backbones.build(name, square, **options)


def build_head(config: RunConfig, width: int) -> keras.Model:
    """Return the head alone, as an untrained model from features of this width to unit vectors."""
    return keras.Sequential([keras.Input((width,)), _make("head", heads, config.head)], name="embedder")


def head_on_features(embedder: keras.Model) -> keras.Model:
    """Return the embedder's head alone, as a model from features to unit vectors. The layer is shared, not copied."""
    backbone, head = split_embedder(embedder)
    return keras.Sequential([keras.Input((int(backbone.output_shape[-1]),)), head], name="head_on_features")


def build_model(config: RunConfig, train: "ImageSet", embedder: keras.Model, steps: int) -> MetricModel:
    """Return the compiled model of a run.

    Args:
        config: The configuration.
        train: The training set.
        embedder: What is trained, ending in a head.
        steps: Batches in an epoch.
    """
    rival = dict(config.rival or {})
    weight, proxies = rival.pop("loss_weight", 0.0), rival.pop("proxies", "shared")
    model = MetricModel(
        embedder,
        _loss(config.loss, train.num_classes),
        rival=_make("rival", heads, {**config.head, "name": config.head["name"], **rival}, label="rival")
        if config.rival is not None
        else None,
        rival_loss_weight=weight,
        rival_proxies=proxies,
        interpolation=0.0
        if config.interpolation is None
        else called("interpolation", "training.Interpolation", Interpolation, **config.interpolation),
        regularizers=[_make("regularizers", regularizers, part, **_texts(part, train)) for part in config.regularizers],
    )
    model.compile(
        build_optimizer(config, steps),
        jit_compile=config.jit_compile,
        steps_per_execution=min(config.steps_per_execution, max(steps, 1)),
    )
    return model


def parts(config: RunConfig) -> dict[str, type]:
    """Return the classes that a configuration names, by where it names them.

    Raises:
        ValueError: For a name that does not exist.

    Example:
        >>> {where: kind.__name__ for where, kind in parts(RunConfig()).items()}
        {'head': 'RealNVP', 'loss': 'ProxyAnchor'}
    """
    found = {"head": _find("head", heads, config.head["name"]), "loss": _find("loss", losses, config.loss["name"])}
    miner = config.loss.get("miner")
    if miner is not None:
        found["loss.miner"] = _find("loss.miner", miners, named("loss.miner", miner)["name"])
    for part in config.regularizers:
        found[f"regularizers.{part['name']}"] = _find("regularizers", regularizers, part["name"])
    return found


def image_options(config: RunConfig) -> dict[str, Any]:
    """Return how batches change the images: crop and augmentation; nothing for features."""
    if config.features:
        return {}
    from tf_detreg.datasets import RandomCrop

    options = {"augment": augmentation(config)}
    if config.crop is not None:
        crop = {key: tuple(value) if isinstance(value, list) else value for key, value in config.crop.items()}
        options["crop"] = called("crop", "datasets.RandomCrop", RandomCrop, **crop)
    return options


def augmentation(config: RunConfig) -> keras.layers.Layer | None:
    """Return the preprocessing layers of a configuration as one layer."""
    layers = [_make("augment", keras.layers, part) for part in config.augment]
    return keras.Sequential(layers, name="augmentation") if layers else None


def _loss(part: Part, classes: int) -> Any:
    part = dict(part)
    miner = part.pop("miner", None)
    if miner is not None:
        part["miner"] = _make("loss.miner", miners, named("loss.miner", miner))
    kind = _find("loss", losses, part["name"])
    if "loss" in part:
        # A cross-batch memory around another loss.
        part["loss"] = _loss(named("loss.loss", part["loss"]), classes)
    if "num_classes" in inspect.signature(kind).parameters:
        part["num_classes"] = classes
    return _make("loss", losses, part)


def _texts(part: Part, train: "ImageSet") -> dict[str, Any]:
    """Return the texts of language guidance, one text embedding a class; a configuration says where they come from."""
    if not isinstance(part.get("texts"), str):
        return {}
    if part["texts"] in texts.SOURCES:
        return {"texts": texts.embeddings(part["texts"], train.class_names)}
    try:
        with np.load(part["texts"], allow_pickle=False) as file:
            return {"texts": np.stack([file[name] for name in train.class_names])}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"`texts` must be {checks.listed(texts.SOURCES)}, or an .npz file that holds the text embedding of each "
            f"class under the class's name; received {part['texts']!r} ({error}). See docs/training.md."
        ) from error


def build_optimizer(config: RunConfig, steps: int) -> "GroupedOptimizer":
    """Return the optimizer, with epochs counted in steps; `steps` are the batches in an epoch."""
    given: dict[str, Any] = FROM_SCRATCH if config.backbone["name"] == "small_cnn" else {}
    if any(_find("regularizers", regularizers, part["name"]).steep for part in config.regularizers):
        given = given | STEEP
    options: dict[str, Any] = {"steps": steps * config.epochs, **given, **config.optimizer}
    for name in (*_BEFORE_THE_FALL, "decay_every"):
        if (epochs := options.pop(f"{name}_epochs", None)) is not None:
            options[name] = round(checks.not_negative(f"{name}_epochs", epochs) * steps)
    before = sum(checks.not_negative(name, options.get(name, 0)) for name in _BEFORE_THE_FALL)
    if options.get("clipnorm") == 0:
        options["clipnorm"] = None
    falls = options["steps"] is not None and options.get("decay", "linear") in ("linear", "cosine")
    if falls and before >= checks.integer("steps", options["steps"], 1):
        said = [f"{name}={value}" for name, value in config.optimizer.items() if name.startswith(_BEFORE_THE_FALL)]
        raise ValueError(
            f"`optimizer`: after {' and '.join(said)} no step of epochs={config.epochs} ({options['steps']} steps) "
            "is left for the learning rate to fall in. Raise epochs, lower these, or take decay='none'."
        )
    return called("optimizer", "training.optimizer", optimizer, **options)


def _make(field: str, package: "ModuleType", part: Part, label: str | None = None, **more: Any) -> Any:
    """Make the thing that a table describes; heads get their group's name."""
    kind = _find(field, package, part["name"])
    options = {key: value for key, value in part.items() if key != "name"} | more
    if field in ("head", "rival"):
        options["name"] = label or "head"
    return called(field, part["name"], kind, **options)


def called(field: str, what: str, function: Callable[..., _Made], **options: Any) -> _Made:
    """Return what a function or class makes of the arguments in a table of a configuration.

    Args:
        field: The table.
        what: What the message calls the function.
        function: It.
        **options: The arguments.

    Raises:
        ValueError: If it does not take them.
    """
    _check_arguments(field, what, function, **options)
    try:
        return function(**options)
    except TypeError as error:
        raise ValueError(f"`{field}`: {what} does not take these arguments: {error}") from error


def _check_arguments(field: str, what: str, function: Callable[..., Any], *given: Any, **options: Any) -> None:
    """Refuse arguments that a function does not have, and what is neither true nor false where one of them is asked."""
    signature = inspect.signature(function)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        raise ValueError(f"`{field}`: {what} does not take these arguments: {error}") from error
    for name, value in options.items():
        # A text such as "no" would count as true.
        if name in signature.parameters and signature.parameters[name].annotation in (bool, "bool"):
            checks.flag(name, value)


def _find(field: str, package: "ModuleType", name: str) -> Any:
    known = {
        key: kind
        for key, kind in vars(package).items()
        if isinstance(kind, type) and issubclass(kind, _KINDS[field]) and kind not in _BASES
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or list(known)[:12]
        raise checks.invalid(
            field, f"be a class of {package.__name__}", checks.shown(name), f"Near are: {', '.join(near)}."
        )
    return known[name]


def data_facts(splits: Any) -> dict[str, Any]:
    """Return sizes and a fingerprint of the data, so that a run does not go on with other images."""
    import hashlib

    facts = {}
    for name, part in zip(splits._fields, splits, strict=True):
        digest = hashlib.sha256(part.labels.tobytes())
        digest.update("\0".join(part.class_names).encode(errors="surrogateescape"))
        features = getattr(part, "features", None)
        if features is not None:
            digest.update(features[part.rows[:: max(1, len(part) // 64)]].tobytes())
        elif part.images is not None and len(part):
            digest.update(part.images[:: max(1, len(part) // 64)].tobytes())
        for path in list(getattr(part, "paths", None) or ())[:: max(1, len(part) // 1024)]:
            digest.update(os.fsencode(os.path.basename(path)))
        facts[name] = {"images": len(part), "classes": part.num_classes, "fingerprint": digest.hexdigest()[:16]}
    return facts

"""A study shrunk to seconds: the same families, heads and losses, on the embedded digits or on data that are given."""

import dataclasses
import re
from typing import Any

from tf_detreg.experiments.study import Study, signature
from tf_detreg.training import RunConfig

BENCHMARKS = ("cub", "cars", "sop", "in_shop")
_SMALLER = {"dim": 8, "depth": 2, "hidden": 8, "blocks": 1, "steps": 2}


def shrink(study: Study, keep_data: bool = False, every: bool = False) -> Study:
    """Return a study's small version: one split, one seed, one epoch of a few steps, small nets.

    Args:
        study: As read from its file.
        keep_data: Whether the data stay as they are, at 16 pixels. Default false: the digits.
        every: Whether all candidates stay, made small. Default false.

    Returns:
        A study of another name, with the last candidate of each family, and one that differs from it in more than
        numbers, unless `every`. A choice has the last alone, so that there is one number of candidates for all.
    """
    if study.points:
        values = list(study.points)
        ends = {value: shrink(study.points[value], keep_data, every) for value in (values[0], values[-1])}
        return dataclasses.replace(next(iter(ends.values())), name=f"{study.name}-smoke", points=ends, axis=study.axis)
    families = {}
    for family, recipes in study.families.items():
        kept = [recipe for recipe in recipes[:-1] if _but_for_numbers(recipe) != _but_for_numbers(recipes[-1])][:1]
        kept = recipes[-1:] if study.kind == "choice" else (*kept, recipes[-1])
        kept = recipes if every else kept
        families[family] = tuple(_small(recipe, keep_data) for recipe in kept)
    protocol = {
        "splits": [0],
        "seeds": [0],
        "choice_seeds": [0],
        "train_share": 1.0,
        "train_classes": 0,
        "max_classes": 0,
    }
    protocol |= {"images_per_class": 4, "directories": False}
    if not keep_data:
        protocol |= {"test": 0.4, "validation": 1 / 3}
    return dataclasses.replace(
        study, name=f"{study.name}-smoke", families=families, protocol={**study.protocol, **protocol}
    )


def _small(recipe: dict[str, Any], keep_data: bool) -> dict[str, Any]:
    """Return one candidate's configuration, made small."""
    smaller = {key: min(value, _SMALLER[key]) for key, value in recipe["head"].items() if key in _SMALLER}
    backbone = {"name": "small_cnn", "width": 4, "blocks": 2}
    backbone |= {key: value for key, value in recipe["backbone"].items() if key == "pooling"}
    # Steps that are counted at the start must leave some to learn in.
    early = {
        "warmup": 1,
        "backbone_delay": 0,
        "warmup_epochs": 0.5,
        "backbone_delay_epochs": 0,
        "decay_every_epochs": 0.5,
    }
    optimizer = {key: value for key, value in early.items() if key in recipe["optimizer"]}
    changes = {
        "head": {**recipe["head"], **smaller},
        "backbone": backbone,
        "optimizer": {**recipe["optimizer"], **optimizer},
        "regularizers": [_without_packages(part, smaller["dim"]) for part in recipe["regularizers"]],
        "classes": min(recipe["classes"], 4),
        "images": min(recipe["images"], 2 if recipe["classes"] else 8),
        "epochs": 1,
        "k": [1, 2],
        "monitor": "recall@1",
        "image_size": 16,
        "precision": "float32",
        "strategy": "",
    }
    if recipe["averaging"]:
        # A small net has no pretrained weights to mix with.
        changes["averaging"] = {"last": 2}
    if not keep_data:
        changes |= {"data": {"name": "digits"}, "image_size": None, "crop": None, "augment": []}
    elif recipe["data"]["name"] in BENCHMARKS:
        # A tree of a few images in the official layout will do.
        changes |= {"data": {**recipe["data"], "check": False}}
    return RunConfig.from_dict({**recipe, **changes}).to_dict()


def _but_for_numbers(recipe: dict[str, Any]) -> str:
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "0", signature(recipe))


def _without_packages(part: dict[str, Any], dim: int) -> dict[str, Any]:
    """Return a regularizer's table at another width, and without a sentence encoder, which is a package of its own."""
    part = {**part, "dim": dim} if "dim" in part else part
    return {**part, "texts": "character trigrams"} if isinstance(part.get("texts"), str) else part

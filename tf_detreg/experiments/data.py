"""The classes of a trial: every loader's images, or a frozen backbone's features of them, dealt by class."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_detreg import checks
from tf_detreg.training import RunConfig, assembly

OFFICIAL = "official"


def parts(config: RunConfig, protocol: Mapping[str, Any], split: int, stage: str) -> tuple[Any, Any, Any]:
    """Return what a trial trains on, what it is measured on, and the gallery that is searched, or None.

    Args:
        config: Of the trial.
        protocol: Of the study, see `experiments.study.PROTOCOL`.
        split: Number of the deal.
        stage: `"validation"`, or `"test"`, where validation classes are trained on too, unless `retrain` is
            false.

    Returns:
        Image or feature sets, with labels from 0.

    Raises:
        ValueError: If the data are not there or have too few classes.
    """
    known, test, gallery = load(config, protocol["test"] == OFFICIAL)
    share = 0.0 if test is not None else protocol["test"]
    limit = protocol["max_classes"] or known.num_classes
    train, validation, tested = deal(
        min(limit, known.num_classes), protocol["validation"], share, split, protocol["train_share"]
    )
    train = _first(train, protocol["train_classes"])
    if stage == "validation":
        learned, unseen, gallery = train, known.select_classes(validation), None
    else:
        learned = np.concatenate([validation, train]) if protocol["retrain"] else train
        unseen = known.select_classes(tested) if test is None else test
    return _thin(known.select_classes(learned), protocol["images_per_class"]), unseen, gallery


def load(config: RunConfig, official: bool) -> tuple[Any, Any, Any]:
    """Return the set whose classes are dealt, and the loader's test set and gallery where it has official ones.

    One data set is kept, since the trials of a process mostly share it.
    """
    wanted = {"data": config.data, "image_size": config.image_size}
    if config.features or config.image_size is None:
        # Without a size, images have that of the backbone's preset.
        wanted |= {"backbone": config.backbone, "features": config.features}
    return _load(json.dumps(wanted, sort_keys=True), official)


@functools.lru_cache(maxsize=1)
def _load(wanted: str, official: bool) -> tuple[Any, Any, Any]:
    config = RunConfig.from_dict(json.loads(wanted))
    splits = assembly.load_splits(config)
    sets = [join(splits), None, None]
    if official:
        sets = [join(splits[:2]), splits.test, getattr(splits, "gallery", None)]
    if not config.features:
        return sets[0], sets[1], sets[2]
    from tf_detreg.datasets import cache_features

    keras.utils.set_random_seed(config.seed)
    backbone = assembly.build_backbone(config, sets[0].image_size)
    first, second, third = (None if part is None else cache_features(backbone, part) for part in sets)
    return first, second, third


def join(parts: Sequence[Any]) -> Any:
    """Return image sets as one, with the classes of the first part first; a class of several parts, by name, is one."""
    parts = [part for part in parts if len(part)]
    numbers: dict[tuple[str, int], int] = {}
    labels = [_numbered(part.class_names, numbers)[part.labels] for part in parts]
    fields: dict[str, Any] = {"labels": np.concatenate(labels), "class_names": [name for name, _ in numbers]}
    for name in ("images", "groups"):
        if getattr(parts[0], name) is not None:
            fields[name] = (
                np.concatenate([getattr(part, name) for part in parts]) if parts[1:] else getattr(parts[0], name)
            )
    if parts[0].paths is not None:
        fields["paths"] = [path for part in parts for path in part.paths]
    return dataclasses.replace(parts[0], **fields, name=parts[0].name.split("/")[0])


def _numbered(names: Sequence[str], numbers: dict[tuple[str, int], int]) -> np.ndarray:
    """Return the number of each class, and put new ones down; classes of one part stay apart whatever their names."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(numbers.setdefault((name, seen[name]), len(numbers)))
    return np.array(found, np.int32)


def deal(num_classes: int, validation: float, test: float, seed: int, share: float = 1.0) -> tuple[np.ndarray, ...]:
    """Return the class numbers of train, validation and test.

    Args:
        num_classes: How many there are.
        validation: Share of the non-test classes.
        test: Share of all classes; 0 for none, where the data set has official test classes.
        seed: Of the deal: the split.
        share: Of the train classes that are kept, for small-data studies. Default 1.

    Raises:
        ValueError: If a part gets fewer than two classes.
    """
    order = np.random.default_rng(seed).permutation(num_classes)
    n_test = round(test * num_classes)
    rest = order[n_test:]
    n_validation = round(validation * len(rest))
    train = rest[n_validation:]
    train = train[: max(2, round(share * len(train)))]
    if (validation and n_validation < 2) or (test and n_test < 2) or len(train) < 2:
        raise ValueError(
            f"{num_classes} classes with validation={validation} and test={test} leave fewer than 2 classes in a part."
        )
    return train, rest[:n_validation], order[:n_test]


def _first(train: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` train classes; 0: all."""
    if count > len(train):
        raise checks.invalid("train_classes", f"be at most the {len(train)} train classes of a split", str(count))
    return train[:count] if count else train


def _thin(train: Any, most: int) -> Any:
    """Return the first `most` images of each class; 0: all."""
    if not most:
        return train
    order = np.argsort(train.labels, kind="stable")
    labels = train.labels[order]
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
    return train.subset(np.sort(order[rank < most]))

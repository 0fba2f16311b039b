"""The data of a run: how it is loaded, and the fingerprint by which others are told apart."""

import collections
import types

import numpy as np
import pytest

from tf_detreg import datasets, losses
from tf_detreg.training import RunConfig, assembly, stages
from tf_detreg.training.assembly import data_facts, load_splits

Splits = collections.namedtuple("Splits", ["train"])


class Part(types.SimpleNamespace):
    def __len__(self):
        return len(self.labels)


def facts(kind, count, changed=None, folder="a", labels=None, names=("ant", "bee")):
    """What is said of a data set, one item of which is another one if `changed` says so."""
    values = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    paths = [f"/{folder}/{item}.png" for item in range(count)]
    if changed is not None:
        values[changed] += 0.5
        paths[changed] = f"/{folder}/other.png"
    part = Part(
        labels=np.arange(count) % 2 if labels is None else labels, class_names=names, num_classes=2, images=None
    )
    if kind == "images":
        part.images = values
    elif kind == "features":
        part.features, part.rows = values[::-1], np.arange(count)[::-1]
    else:
        part.paths = paths
    return data_facts(Splits(part))


@pytest.mark.parametrize(
    ("kind", "count", "step"),
    [
        ("images", 40, 1),
        ("images", 127, 1),
        ("images", 200, 3),
        ("features", 40, 1),
        ("features", 200, 3),
        ("paths", 40, 1),
        ("paths", 3100, 3),
    ],
)
def test_a_fingerprint_is_of_some_items_all_over_the_set(kind, count, step):
    known = facts(kind, count)
    assert known["train"] | {"fingerprint": 0} == {"images": count, "classes": 2, "fingerprint": 0}
    assert len(known["train"]["fingerprint"]) == 16
    for item in (0, step, (count - 1) // step * step):
        assert facts(kind, count, item) != known
    if step > 1:
        assert facts(kind, count, 1) == known
    assert facts(kind, count, folder="b") == known  # data may move
    assert facts(kind, count, labels=np.arange(count) // 2 % 2) != known
    assert facts(kind, count, names=("ant", "wasp")) != known


def test_an_empty_part_has_a_fingerprint():
    part = Part(labels=np.zeros(0, int), class_names=(), num_classes=0, images=np.zeros((0, 2, 2, 3)))
    assert data_facts(Splits(part))["train"]["images"] == 0


def test_data_are_loaded_by_name(monkeypatch):
    def digits(seed: int = 0, image_size: int = 8, *, bright: bool = False):
        return seed, image_size, bright

    monkeypatch.setattr(datasets, "digits", digits)
    config = RunConfig(data={"name": "digits", "bright": True}, image_size=16)
    assert load_splits(config) == (0, config.image_size, True)
    with pytest.raises(ValueError, match=r"`data`: digits does not take these arguments:.*dark"):
        load_splits(RunConfig(data={"name": "digits", "dark": True}, image_size=16))


@pytest.mark.parametrize(("images", "classes"), [(0, 2), (4, 1), (0, 0)])
def test_nothing_is_learned_from_fewer_than_two_classes(images, classes):
    train = Part(labels=np.zeros(images), num_classes=classes)
    with pytest.raises(ValueError, match=f"has {images} images of {classes} classes; at least 2 classes"):
        stages.load_data("config", "place", Splits(train))


def test_two_classes_are_enough():
    data = stages.load_data("config", "place", Splits(Part(labels=np.zeros(4), num_classes=2)))
    assert (data.config, data.place, len(data.splits.train), data.holds_features) == ("config", "place", 4, False)


def test_data_are_named_by_their_loader_and_by_nothing_else_that_is_there():
    splits = load_splits(RunConfig.from_dict({"data": "digits"}))
    assert [part.num_classes for part in splits] == [part.num_classes for part in datasets.digits()]
    for name in ("ImageSet", "decode", "no_such_data"):
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            load_splits(RunConfig.from_dict({"data": name}))


@pytest.mark.parametrize(
    ("changes", "labels", "told"),
    [
        ({}, [0, 1, 2], True),
        ({}, [0, 1, 1], False),
        ({"augment": ["RandomFlip"]}, [0, 1, 2], False),
        ({"crop": {}}, [0, 1, 2], False),
        ({"loss": "ProxyAnchor"}, [0, 1, 2], False),
    ],
)
def test_batches_of_repeated_images_are_told_of(changes, labels, told, caplog):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    train = datasets.ImageSet(labels=labels, class_names=list("abc"), images=images, name="the set")
    config = RunConfig.from_dict({"data": {"name": "digits"}, "loss": "SupCon", **changes})
    assembly.check_batches(config, train)
    assert ("No class of the set has two images: a batch repeats each" in caplog.text) is told


@pytest.mark.parametrize(
    ("classes", "images", "message"),
    [
        (0, 1, "`images` must be 2 or more .* a batch holds one image"),
        (0, 2, None),
        (1, 4, "`classes` must be 2 or more .* a batch holds images of one class only"),
        (2, 1, "`images` must be 2 or more .* a batch holds no two images of one class"),
        (2, 2, None),
    ],
)
def test_batches_hold_what_a_pair_loss_compares(classes, images, message):
    train = datasets.ImageSet(labels=[0, 0, 1, 1], class_names=["a", "b"], images=np.zeros((4, 4, 4, 3), np.uint8))
    given = {"data": {"name": "digits"}, "loss": "SupCon", "classes": classes, "images": images}
    if message is None:
        assembly.check_batches(RunConfig.from_dict(given), train)
    else:
        with pytest.raises(ValueError, match=message):
            assembly.check_batches(RunConfig.from_dict(given), train)
    assembly.check_batches(RunConfig.from_dict({**given, "loss": "ProxyAnchor"}), train)


def test_only_classes_of_their_kind_are_found_by_name():
    package = types.ModuleType("package")
    package.SupCon, package.Other, package.PairLoss, package.number = losses.SupCon, dict, losses.PairLoss, 3
    assert assembly._find("loss", package, "SupCon") is losses.SupCon
    for wrong in ("Other", "PairLoss", "number", "SupCo"):
        with pytest.raises(
            ValueError, match=rf"^`loss` must be a class of package; received '{wrong}'.* are: SupCon\.$"
        ):
            assembly._find("loss", package, wrong)

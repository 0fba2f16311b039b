"""What a run's export takes from the run, and what a caller may say instead."""

import pathlib
import types

import numpy as np
import pytest

from tf_detreg.datasets import ImageSet, Splits
from tf_detreg.export import runs


def image_set(count, classes, name="photos/train"):
    names = [f"class {number}" for number in range(classes)]
    return ImageSet(np.arange(count) % classes, names, np.zeros((count, 2, 2, 3), np.uint8), name=name)


SPLITS = Splits(image_set(1200, 3), image_set(0, 1), image_set(8, 2))
RUN = types.SimpleNamespace(
    directory=pathlib.Path("runs/mine"),
    embedder="model",
    config=types.SimpleNamespace(to_dict=lambda: {"dim": 3}),
    splits=lambda: SPLITS,
)


@pytest.fixture
def asked(monkeypatch):
    found = {}

    def release(*arguments, **options):
        found.update(options, arguments=arguments)
        return "released"

    monkeypatch.setattr(runs, "release", release)
    monkeypatch.setattr(runs, "run_results", lambda directory: {"evaluation": str(directory)})
    monkeypatch.setattr(runs, "held_back", lambda splits: ("held back", splits))
    return found


KNOWN = {
    "name": "mine",
    "data": "photos: 1,200 images of 3 classes for training, 8 images of 2 classes for test.",
    "recipe": {"dim": 3},
    "evaluation": "runs/mine",
}


def test_a_run_says_all_of_its_card(asked):
    assert runs.export_run(RUN, "saved") == "released"
    assert asked.pop("arguments") == ("model", pathlib.Path("saved/mine"), ("held back", SPLITS))
    assert asked.pop("class_names") == ("class 0", "class 1", "class 2") and asked.pop("calibration") is SPLITS.train
    assert asked == {"formats": None, "check": True, "card": KNOWN, "progress": None}


def test_who_calls_may_say_otherwise(asked):
    other = Splits(image_set(6, 3, "other"), image_set(4, 2), image_set(0, 1))
    options = {"name": "shop", "formats": ["int8"], "check": False, "progress": False}
    runs.export_run(RUN, "saved", other, **options, card={"license": "MIT", "evaluation": "new"})
    assert asked.pop("arguments") == ("model", pathlib.Path("saved/shop"), None)
    assert asked.pop("calibration") is other.train and len(asked.pop("class_names")) == 3
    data = "other: 6 images of 3 classes for training, 4 images of 2 classes for validation."
    card = {**KNOWN, "name": "shop", "data": data, "license": "MIT", "evaluation": "new"}
    assert asked == {"formats": ["int8"], "check": False, "card": card, "progress": False}

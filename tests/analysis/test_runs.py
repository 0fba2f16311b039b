"""What of a run's data its smoothness is measured on."""

import types

import numpy as np
import pytest

from tf_detreg.analysis import lipschitz, runs
from tf_detreg.datasets import ImageSet, Splits


def image_set(names):
    labels = np.repeat(np.arange(len(names)), 2)
    return ImageSet(labels, names, images=np.zeros((len(labels), 2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("tested", "measured", "new"),
    [
        (["c", "d"], ["c", "c", "d", "d"], True),
        (["a", "d"], ["d", "d"], True),
        (["b", "a"], ["b", "b", "a", "a"], False),
    ],
)
def test_smoothness_is_measured_on_new_classes_where_there_are_any(tested, measured, new, monkeypatch):
    asked = {}

    def measure(embedder, train, **options):
        asked.update(options, embedder=embedder, train=train)
        return "report"

    monkeypatch.setattr(lipschitz, "measure", measure)
    splits = Splits(image_set(["a", "b"]), image_set(["v", "w"]), image_set(tested))
    run = types.SimpleNamespace(embedder="embedder", config=types.SimpleNamespace(seed=5), splits=lambda: splits)
    assert runs.analyze_run(run, samples=3, memory=0.2) == ("report", new)
    unseen = asked.pop("unseen")
    assert [unseen.class_names[label] for label in unseen.labels] == measured
    assert asked == {
        "embedder": "embedder", "train": splits.train, "samples": 3, "pairs": 24, "seed": 5, "memory": 0.2
    }  # fmt: skip

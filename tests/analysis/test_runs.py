"""What of a run's data its smoothness is measured on."""

import types

import numpy as np
import pytest

from tf_detreg.analysis import lipschitz, run_page, runs
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


@pytest.mark.parametrize("gallery", [False, True])
def test_a_run_is_evaluated_as_it_was_asked_for(gallery, monkeypatch):
    test, there = image_set(["a", "d"]), image_set(["d", "e"])
    embedded = {
        id(part): types.SimpleNamespace(embeddings=f"vectors {n}", labels=part.labels, groups=f"groups {n}")
        for n, part in enumerate((test, there))
    }
    asked = []
    monkeypatch.setattr(runs, "measured_on", lambda splits: [test, there] if gallery else [test])
    monkeypatch.setattr(runs.training, "embed", lambda model, part, **o: asked.append((model, o)) or embedded[id(part)])
    monkeypatch.setattr(runs.retrieval, "evaluate", lambda *a, **o: asked.append((a, o)) or "report")
    monkeypatch.setattr(runs, "by_training", lambda *a, **o: asked.append((a, o)) or "parts")
    splits = Splits(image_set(["a", "b"]), image_set(["v", "w"]), test)
    run = types.SimpleNamespace(embedder="model", config=types.SimpleNamespace(k=(1, 3, 4)), splits=lambda: splits)
    found = runs.evaluate_run(run, engine="exact", clusters=True, cross_group=True, progress=False)
    assert (found.report, found.parts, len(found.embedded)) == ("report", "parts", 1 + gallery)
    *embeddings, (first, options), (second, apart) = asked
    assert embeddings == [("model", {"progress": False})] * (1 + gallery)
    beside = {"groups": "groups 0"}
    if gallery:
        assert options.pop("gallery_labels") is apart.pop("gallery_labels") is there.labels
        beside |= {"gallery": "vectors 1", "gallery_groups": "groups 1"}
    # Of four images in a gallery, or three others of the set itself.
    ranks = [1, 3, 4] if gallery else [1, 3]
    assert options == {**beside, "k": ranks, "engine": "exact", "clusters": True, "progress": False}
    assert apart == {**beside, "k": (1, 3, 4), "engine": "exact", "progress": False}
    assert first == ("vectors 0", test.labels) and second[:2] == first and second[2].tolist() == [True, False]
    asked.clear()
    runs.evaluate_run(run, splits)
    assert asked[0][1] == {"progress": None} and (asked[-2][1]["engine"], asked[-2][1]["clusters"]) == ("auto", False)
    assert "groups" not in asked[-2][1]


def test_ranks_that_no_query_has_are_left_out_of_the_comparison():
    angles = np.radians([0, 1, 90, 91, 200, 203])
    rows, labels = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.repeat([0, 1, 2], 2)
    alone = run_page.compare({"a": [rows], "b": [rows[::-1]]}, [labels], (1, 5, 6))
    assert {name: list(found.recall) for name, found in alone.items()} == {"a": [1, 5], "b": [1, 5]}
    across = run_page.compare({"a": [rows[:2], rows]}, [labels[:2], labels], (1, 5, 6, 7))
    assert list(across["a"].recall) == [1, 5, 6] and across["a"].recall[1] == 1.0
    assert run_page.recall_rows(alone)[0] == {
        "embedding": "a", "R@1": pytest.approx(100), "R@5": pytest.approx(100), "MAP@R": pytest.approx(100)
    }  # fmt: skip


def test_raw_pixels_are_grey_values_and_black_has_a_direction():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[1, 0, 1] = [30, 60, 90]
    found = run_page.raw_pixels(ImageSet([0, 1], ["a", "b"], images=images))
    assert found.tolist() == [[1, 1, 1, 1], [0, 60, 0, 0]] and found.dtype == np.float32


@pytest.mark.parametrize("gallery", [False, True])
def test_classes_trained_on_are_measured_apart_without_intervals(gallery, monkeypatch):
    asked = {}
    monkeypatch.setattr(run_page, "by_training", lambda *a, **o: asked.update(o, arguments=a) or "parts")
    sets, vectors = [image_set(["a", "d"]), image_set(["d"])][: 1 + gallery], ["first", "second"]
    assert run_page._by_training(sets, vectors, ("a", "b"), (1, 2)) == "parts"
    embeddings, labels, trained = asked.pop("arguments")
    assert (embeddings, labels.tolist(), trained.tolist()) == ("first", [0, 0, 1, 1], [True, False])
    there = {"gallery": "second", "gallery_labels": sets[-1].labels} if gallery else {}
    assert asked == {**there, "k": (1, 2), "resamples": 0, "progress": False}

"""What a trial measures, in percent, counted by hand."""

import types

import numpy as np
import pytest

from tf_detreg.experiments import data, trial


def at(degrees, labels, groups=None):
    angle = np.radians(degrees)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return types.SimpleNamespace(embeddings=rows, labels=np.array(labels), groups=groups)


# Nearest: 0 finds 10 (right), 10 finds 0 (right), 21 finds 10 (wrong), 60 finds 21 (right).
UNSEEN = at([0, 10, 21, 60], [0, 0, 1, 1])
TRAIN = at([0, 1, 50, 52, 90], [0, 0, 1, 2, 1])


@pytest.fixture(autouse=True)
def embedded(monkeypatch):
    monkeypatch.setattr(trial.training, "embed", lambda embedder, part, batch_size: part)


def test_retrieval_is_measured_in_percent():
    found = trial.measure(None, TRAIN, UNSEEN, (1, 2, 3, 9))
    # One relevant item a query: MAP@R is R@1. Ranks that no query has are left out.
    assert found == pytest.approx(
        {"recall@1": 75, "recall@2": 75, "recall@3": 100, "map@r": 75, "train_recall@1": 50}, abs=1e-9
    )


def test_queries_are_searched_for_in_a_gallery():
    gallery = at([2, 25, 29, 58], [0, 1, 0, 1])
    found = trial.measure(None, TRAIN, UNSEEN, (1, 4), gallery)
    # Each finds its class first: 0 and 10 the 2, 21 the 25, 60 the 58. Two are relevant to each.
    assert found["recall@1"] == pytest.approx(100) and found["recall@4"] == pytest.approx(100)
    assert found["map@r"] == pytest.approx(100 * (0.5 + 0.5 + 0.5 + 0.5) / 4)


def test_recall_across_groups_is_measured_where_a_class_has_two():
    groups = np.array([0, 1, 0, 1])
    crossed = trial.measure(None, TRAIN, at([0, 10, 21, 60], [0, 0, 1, 1], groups), (1,))
    # No query has an item of its class and group beside itself.
    assert crossed["cross_recall@1"] == pytest.approx(75)
    alone = trial.measure(None, TRAIN, at([0, 10, 21, 60], [0, 0, 1, 1], np.array([0, 0, 1, 1])), (1,))
    assert "cross_recall@1" not in alone


def test_classes_of_one_part_stay_apart_whatever_their_names():
    numbers = {}
    assert data._numbered(["a", "b", "a", "a"], numbers).tolist() == [0, 1, 2, 3]
    assert data._numbered(["a", "c", "a"], numbers).tolist() == [0, 4, 2]
    assert [name for name, _ in numbers] == ["a", "b", "a", "a", "c"]


def test_a_trial_reports_the_last_epoch_and_when_warnings_came(monkeypatch):
    log = {"metric_loss": 0.25, "determinant": 1.5, "loss": 9.0}
    log |= {f"health_{name}": float(number) for number, name in enumerate(trial.HEALTH)}
    warned = []
    embedder = types.SimpleNamespace(count_params=lambda: 7)
    passed = []
    unseen = types.SimpleNamespace(subset=lambda rows: ("none", rows))
    monkeypatch.setattr(trial.data, "parts", lambda *asked: passed.append(asked) or ("train", unseen, "gallery"))
    monkeypatch.setattr(
        trial, "_passing", lambda config, splits, _: passed.append(splits) or (embedder, log, warned, 2.5)
    )
    monkeypatch.setattr(trial, "measure", lambda *asked: passed.append(asked) or {"recall@1": 50.0})
    monkeypatch.setattr(trial, "smoothness", lambda *asked: passed.append(asked) or {"stretch": 3.0})
    config = types.SimpleNamespace(k=(1, 2), seed=4, health=False)
    plain = trial.run(config, {"smoothness": False}, 1, "test")
    assert plain.pop("peak_memory_mb") > 50
    assert plain == {"metric_loss": 0.25, "determinant": 1.5, "seconds": 2.5, "parameters": 7, "recall@1": 50.0}
    assert passed[0][1:] == ({"smoothness": False}, 1, "test") and passed[1] == ("train", ("none", []), unseen)
    assert passed[2] == (embedder, "train", unseen, (1, 2), "gallery") and len(passed) == 3
    config.health = True
    for warned in (None, [], [3], [2, 3, 7]):
        found = trial.run(config, {"smoothness": True}, 0, "validation")
        ends = {"health_first_warning": warned[0], "health_last_warning": warned[-1]} if warned else {}
        told = {name: value for name, value in found.items() if name.startswith("health")}
        assert (
            told
            == {f"health_{name}": float(n) for n, name in enumerate(trial.HEALTH)}
            | ({} if warned is None else {"health_warnings": len(warned)})
            | ends
        )
        assert found["stretch"] == 3.0 and passed[-1] == (embedder, "train", unseen, 4)

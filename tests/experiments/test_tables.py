"""Tables of a study: what is written, read and shown."""

import dataclasses
import json
import types

import pytest

from tf_detreg.experiments import pages, runner, table, trial
from tf_detreg.experiments.statistics import Interval


def record(seed=0, **metrics):
    config = {"head": {"name": "Linear", "dim": 4}, "data": {"name": "digits"}, "classes": 0}
    job = {"study": "s", "stage": "test", "family": "f", "recipe_hash": "h", "split": 0, "seed": seed, "config": config}
    return {**job, "metrics": metrics, "versions": {"keras": "3"}, "machine": "m", "finished": "now"}


def test_a_table_is_the_same_text_whatever_the_order_of_entries():
    one = table.tidy([record(1, a=1.0), record(0, a=1.0)])
    assert [row["seed"] for row in one] == [0, 1]
    text = one[0]["recipe"]
    assert text == json.dumps(json.loads(text), sort_keys=True)
    turned = record(0, a=1.0)
    turned["config"] = dict(reversed(list(turned["config"].items())))
    assert table.tidy([turned])[0]["recipe"] == text


def test_metrics_that_a_trial_lacks_stay_empty(tmp_path):
    path = table.write(table.tidy([record(0, a=1.25), record(1, b=2.0)]), tmp_path / "t.csv")
    first, second = table.read(path)
    assert (first["metric.a"], first["metric.b"], second["metric.b"]) == (1.25, "", 2.0)
    assert table.values([first, second], "a") == {(0, 0): 1.25}


def test_numbers_are_shown_with_their_spread_where_there_is_one():
    several = Interval(1.234, 0.567, 3, (0.0, 2.5), (0.1, 2.4))
    one = Interval(1.234, float("nan"), 1, (-float("inf"), float("inf")), (-float("inf"), float("inf")))
    assert [table.show(found) for found in (several, one, None)] == ["1.23 ± 0.57", "1.23", ""]
    assert table.show_difference(several) == "+1.23 [+0.00, +2.50] / [+0.10, +2.40]"
    assert [table.show_difference(found) for found in (one, None)] == ["+1.23 (one pair)", "baseline"]


def entry(name, **metrics):
    return {"name": name, "metrics": {key: Interval(v, 0.0, 2, (v, v), (v, v)) for key, v in metrics.items()}}


def test_smoothness_shows_what_any_candidate_has():
    assert pages._smoothness([entry("a"), entry("b")]) is None
    grid = pages._smoothness([entry("a", spectral=2.0, frobenius=0.5), entry("b", secant_within_unseen=0.25)])
    columns = grid.head[2:]
    assert set(columns) == {"spectral", "frobenius", "secant_within_unseen"}
    found = {row[0]: dict(zip(grid.head[1:], row[1:], strict=True)) for row in grid.rows}
    assert found["a"] == {
        "spectral / frobenius": "4.00",
        "spectral": "2.000",
        "frobenius": "0.500",
        "secant_within_unseen": "",
    }
    assert found["b"]["secant_within_unseen"] == "0.250" and found["b"]["spectral / frobenius"] == ""


def test_health_shows_what_any_candidate_has():
    assert pages._health([entry("a")]) is None
    grid = pages._health([entry("a"), entry("b", health_mean_cosine=0.5)])
    assert grid.head[1:] == ["mean cosine"] and [row[1] for row in grid.rows] == ["", "0.50 ± 0.00"]


def test_what_was_chosen_stands_in_the_order_of_the_splits():
    recipes = ({"head": {"name": "Linear", "dim": 4}}, {"head": {"name": "Linear", "dim": 8}})
    study = types.SimpleNamespace(families={"linear": recipes})
    rows = [{"family": "linear", "stage": "test", "split": split, "recipe": recipes[split]} for split in (1, 0)]
    rows.append({"family": "linear", "stage": "validation", "split": 0, "recipe": recipes[1]})
    ((family, count, text),) = pages._chosen(study, rows).rows
    assert (family, count) == ("linear", "2")
    assert text.index("0: ") < text.index("1: ") and "dim 4" in text.split(";")[0] and "dim 8" in text.split(";")[1]


@dataclasses.dataclass(frozen=True)
class Plan:
    kind: str
    families: dict
    protocol: dict


def test_the_first_stage_of_a_choice_is_an_ablation_on_validation_classes():
    plan = Plan("choice", {}, {})
    rows = [{"stage": stage} for stage in ("validation", "test", "validation")]
    study, kept = pages._as_ablation(plan, rows)
    assert study.kind == "ablation" and kept == [rows[0], rows[2]]


@pytest.mark.parametrize(
    ("kind", "stage", "seeds"),
    [
        ("choice", "validation", [7]),
        ("choice", "test", [0, 1]),
        ("ablation", "validation", [0, 1]),
        ("table", "test", [0, 1]),
    ],
)
def test_a_choice_alone_chooses_with_its_few_seeds(kind, stage, seeds, monkeypatch):
    monkeypatch.setattr(runner, "describe", lambda study, stage, recipe, split, seed: (recipe, split, seed))
    plan = Plan(kind, {"a": ("r",), "b": ("s",)}, {"choice_seeds": [7], "seeds": [0, 1], "splits": [4, 5]})
    wanted = [(recipe, split, seed) for recipe in "rs" for split in (4, 5) for seed in seeds]
    assert runner.jobs_of(plan, stage) == wanted


def test_data_count_by_name_and_size_and_not_by_their_place(tmp_path):
    (tmp_path / "a.csv").write_text("12345")
    file = {"name": "csv", "path": str(tmp_path / "a.csv")}
    assert runner._by_name_and_size(file) == {"name": "csv", "path": ["a.csv", 5]}
    assert runner._by_name_and_size({"name": "folder", "path": str(tmp_path)}) == {
        "name": "folder",
        "path": tmp_path.name,
    }
    assert runner._by_name_and_size({"name": "digits"}) == {"name": "digits"}


def test_a_trial_reports_percent():
    import keras
    import numpy as np

    from tf_detreg import datasets, retrieval

    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    unseen = datasets.digits().test.subset(np.arange(0, 350, 5))
    found = trial.measure(model, unseen, unseen, (1, 2, 1000))
    pixels = np.concatenate([images.numpy().reshape(len(images), -1) for images, _ in unseen.ordered(64)])
    report = retrieval.evaluate(pixels, unseen.labels, k=(1, 2), engine="exact", progress=False)
    assert set(found) == {"recall@1", "recall@2", "map@r", "train_recall@1"}
    assert found["recall@1"] == found["train_recall@1"] == pytest.approx(100 * report.recall[1])
    assert found["recall@2"] == pytest.approx(100 * report.recall[2])
    assert found["map@r"] == pytest.approx(100 * report.map_at_r) and found["map@r"] > 1

"""What a study says reaches its trials, and how candidates are compared; nothing trains here."""

import dataclasses
import json
import pathlib
import types

import keras
import numpy as np
import pytest

from tf_detreg import datasets, training
from tf_detreg.experiments import ablation, candidates, cost, data, runner, statistics, study, trial, tuning
from tf_detreg.experiments.candidates import Candidate, Measured

RECIPE = training.RunConfig.from_dict({"data": "digits", "backbone": {"name": "small_cnn"}}).to_dict()


def a_study(**changes):
    known = study.Study("margins", "ablation", "", "", study.PROTOCOL, {"one": (RECIPE,)}, (), True, pathlib.Path())
    return dataclasses.replace(known, **changes)


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Write the record of a trial that a stand-in ran; return what that was given, the record and the line."""
    asked = []

    def run(*given):
        asked.append(given)
        return {"recall@1": 12.341, "seconds": 61.2}

    monkeypatch.setattr(trial, "run", run)

    def call(threads, **protocol):
        monkeypatch.setattr(runner, "_devices", lambda: threads)
        job = runner.describe(a_study(protocol={**study.PROTOCOL, **protocol}), "test", RECIPE, 3, 8)
        line = runner._trial(job, str(tmp_path))
        record = json.loads((tmp_path / f"{job['key']}.json").read_text())
        return asked.pop(), job, record, line

    return call


def test_a_trial_gets_its_seed_and_is_kept_where_the_study_says(ran, tmp_path):
    (config, protocol, split, stage, kept), job, record, line = ran("all threads")
    assert (config.seed, config.deterministic, split, stage, kept) == (8, True, 3, "test", None)
    assert protocol == job["protocol"]
    assert {name: record[name] for name in job} == job
    assert record["metrics"] == {"recall@1": 12.341, "seconds": 61.2}
    assert record["machine"].endswith(", all threads") and set(record["versions"]) == set(runner._versions())
    name = f"{config.head['name']} {job['recipe_hash']}"
    assert line == f"test split 3 seed 8 {name}: R@1 12.34, 61 s"
    # One thread repeats to the bit by itself.
    (config, *_, kept), job, _, _ = ran(runner.ONE_THREAD, directories=True)
    assert config.deterministic is False and kept == tmp_path / job["key"]


def test_a_study_is_moved_to_other_data_and_another_backbone():
    recipe = {
        **RECIPE,
        "backbone": {"name": "ResNet50", "weights": "imagenet", "freeze_batch_norm": True, "dropout": 1},
    }
    recipe["backbone"].pop("dropout")
    recipe["backbone"]["pooling"] = "max"
    known = a_study(families={"one": (recipe, RECIPE)})
    known = dataclasses.replace(known, points={"a": a_study(), "b": a_study()})
    found = ablation.adapt(known, "photos", "hub:org/net", "mirrored")
    first, second = found.families["one"]
    assert first["backbone"] == {"weights": "imagenet", "freeze_batch_norm": True, "name": "hub:org/net"}
    assert second["backbone"] == {"name": "hub:org/net"}
    assert first["data"]["path"] == "photos" and first["strategy"] == "mirrored"
    assert found.name == "margins-hub-org-net"
    for point in found.points.values():
        ((recipe),) = point.families["one"]
        assert (recipe["data"]["path"], recipe["strategy"]) == ("photos", "mirrored")
        assert recipe["backbone"] == {"name": "hub:org/net"} and point.name == "margins-hub-org-net"
    same = ablation.adapt(known)
    assert same.name == "margins" and same.families == known.families


@pytest.mark.parametrize(
    ("options", "results"),
    [
        ({}, "studies/results"),
        ({"data": "photos"}, "studies/results"),
        ({"smoke": True}, "out/results"),
        ({"backbone": "small_cnn"}, "out/results"),
    ],
)
def test_the_table_of_a_study_is_written_beside_it_but_for_a_trial_run(options, results, monkeypatch, tmp_path):
    noted = {}
    known = dataclasses.replace(a_study(), path=tmp_path / "studies" / "margins.toml")
    monkeypatch.setattr(ablation, "read", lambda file: known)

    def run(part, output, jobs, progress, *, log):
        noted["run"] = (part.name, output, jobs, progress, log)
        return []

    monkeypatch.setattr(ablation.runner, "run", run)
    monkeypatch.setattr(ablation.table, "tidy", lambda rows: rows)
    monkeypatch.setattr(ablation.table, "write", lambda rows, path: noted.update(table=path))
    monkeypatch.setattr(ablation.table, "read", lambda path, of: noted.update(read=(path, of.name)) or [])
    monkeypatch.setattr(ablation.pages, "study_page", lambda of, rows: "The page.")
    page = ablation.ablate("file", tmp_path / "out", 3, progress=False, **options)
    name = noted["run"][0]
    assert noted["run"] == (name, tmp_path / "out", 3, False, None)
    assert noted["table"] == tmp_path / results / f"{name}.csv" and noted["read"] == (noted["table"], name)
    assert page == tmp_path / "out" / name / "report.html" and page.read_text() == "The page."


def measured(recall, low=0.0):
    return Measured(recall, (low, 1.0), 0.5, (0.4, 0.6))


def test_candidates_are_sorted_by_their_recall_and_named_where_they_fail(monkeypatch):
    asked = []
    worth = {"a": measured(0.5), "b": measured(0.9), "c": measured(0.7)}

    def images(count):
        pixels = np.zeros((count, 4, 4, 3), np.uint8)
        return datasets.ImageSet(np.arange(count) % 2, ["x", "y"], pixels, image_size=4)

    splits = datasets.Splits(images(4), images(6), images(4))

    def build(config, size):
        asked.append((config.backbone["name"], config.image_size, config.seed, size, np.random.random()))
        if config.backbone["name"] == "d":
            raise OSError("not there")
        return "backbone"

    def measure(config, backbone, of, epochs, progress):
        name = config.backbone["name"]
        return Candidate(name, None, (4, 4), 8, 1, 1.0, 1.0, measured(0.1), worth[name])

    monkeypatch.setattr(candidates.assembly, "load_splits", lambda config: splits)
    monkeypatch.setattr(candidates.assembly, "build_backbone", build)
    monkeypatch.setattr(candidates, "_measure", measure)
    found = candidates.compare("photos", ("a", "b@32", "c", "d"), epochs=2, image_size=16, seed=5)
    assert [one.name for one in found.candidates] == ["b", "c", "a"]
    assert (found.images, found.classes, found.epochs) == (6, 2, 2) and found.failures == {"d": "not there"}
    assert [given[:4] for given in asked] == [
        (name, 32 if name == "b" else 16, 5, (4, 4)) for name in ("a", "b", "c", "d")
    ]
    # Each draws the weights that a run of this seed draws.
    assert len({given[4] for given in asked}) == 1
    with pytest.raises(ValueError, match="`names` must differ"):
        candidates.compare("photos", ("a", "a"))


def test_two_validation_classes_of_two_images_are_enough_to_compare_on():
    def splits(labels, names):
        pixels = np.zeros((len(labels), 1, 1, 3), np.uint8)
        return types.SimpleNamespace(validation=datasets.ImageSet(np.array(labels, int), names, pixels))

    candidates._check(splits([0, 0, 1, 1, 2], list("abc")))
    for labels, names in (([0, 0, 1, 2], list("abc")), ([], ["a"])):
        with pytest.raises(ValueError, match="At least 2 validation classes need 2 images each"):
            candidates._check(splits(labels, names))


def test_the_linear_head_of_a_comparison_is_trained_as_stated(monkeypatch):
    asked = []
    assembled = types.SimpleNamespace(embedder="embedder", fit=lambda callbacks, verbose: asked.append(verbose))
    monkeypatch.setattr(
        candidates.training, "assemble", lambda config, splits: asked.append((config, splits)) or assembled
    )
    embedded = types.SimpleNamespace(embeddings="rows", labels="labels")
    monkeypatch.setattr(candidates.training, "embed", lambda *given, **options: asked.append(given) or embedded)
    monkeypatch.setattr(candidates, "_evaluate", lambda *given: given)
    for dim, classes, expected in ((64, 40, (64, 16)), (300, 5, (128, 5))):
        train = types.SimpleNamespace(num_classes=classes, dim=dim)
        splits = types.SimpleNamespace(train=train, validation="validation")
        config = training.RunConfig.from_dict({"features": True, "data": "digits", "seed": 3})
        assert candidates._linear(config, splits, 7, "net", False) == ("rows", "labels")
        (made, given), verbose, on = asked[-3:]
        assert (made.head["name"], made.head["dim"], made.classes) == ("Linear", *expected)
        assert (made.loss["name"], made.epochs, made.seed, given) == ("ProxyAnchor", 7, 3, splits)
        rates = {name: made.optimizer[name] for name in ("head_rate", "proxy_factor", "clipnorm")}
        assert rates == {"head_rate": 1e-2, "proxy_factor": 10, "clipnorm": 1.0}
        assert verbose == 0 and on == ("embedder", "validation")


def test_speed_is_that_of_the_median_batch(monkeypatch):
    model = keras.Sequential([keras.Input((2, 3, 3)), keras.layers.Flatten()])
    seen = []
    monkeypatch.setattr("tf_detreg.inference.traced", lambda model: lambda images: seen.append(images.shape) or images)
    clock = iter([0.0, 1.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(candidates.time, "perf_counter", lambda: next(clock))
    assert candidates.images_per_second(model, 4, seconds=1.0) == 2.0
    assert [tuple(shape) for shape in seen] == [(4, 2, 3, 3)] * 4


def test_what_a_study_costs_is_told():
    found = cost.Cost(12, 3_600_000, 100.0)
    assert found.hours == 10.0
    assert str(found) == "12 trials, 3.6 million images: 10 hours of one device at 100 images a second"


@pytest.fixture
def twelve(monkeypatch):
    """Twelve classes of three images, perhaps with an official test set."""

    def images(names, first):
        count = 3 * len(names)
        pixels = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
        return datasets.ImageSet(np.repeat(np.arange(len(names)), 3), names, pixels)

    known, test, gallery = images([f"c{at}" for at in range(12)], 0), images(["t0", "t1"], 100), images(["t0"], 200)

    def load(config, official):
        return (known, test, gallery) if official else (known, None, None)

    monkeypatch.setattr(data, "load", load)

    def call(stage, **protocol):
        parts = data.parts(None, {**study.PROTOCOL, "images_per_class": 0, **protocol}, 1, stage)
        return (*[set(part.class_names) for part in parts[:2]], parts[2])

    return call


def test_a_trial_sees_no_class_that_it_is_measured_on(twelve):
    shares = {"validation": 0.25, "test": 1 / 3, "max_classes": 0, "train_share": 1.0, "train_classes": 0}
    train, validation, gallery = twelve("validation", **shares)
    assert (len(train), len(validation), gallery) == (6, 2, None) and not train & validation
    retrained, test, gallery = twelve("test", **shares, retrain=True)
    assert retrained == train | validation and len(test) == 4 and gallery is None and not test & retrained
    assert twelve("test", **shares, retrain=False)[0] == train
    fewer, some, _ = twelve("validation", **{**shares, "max_classes": 9})
    assert fewer | some < {f"c{at}" for at in range(9)} and len(fewer | some) == 6
    assert len(twelve("validation", **{**shares, "train_classes": 3})[0]) == 3
    with pytest.raises(ValueError, match="at most the 6 train classes"):
        twelve("validation", **{**shares, "train_classes": 7})


def test_official_test_classes_are_measured_on_with_their_gallery(twelve):
    shares = {"validation": 0.25, "test": data.OFFICIAL, "max_classes": 0, "train_share": 1.0, "train_classes": 0}
    train, validation, gallery = twelve("validation", **shares)
    assert (len(train), len(validation), gallery) == (9, 3, None)
    train, test, gallery = twelve("test", **shares, retrain=True)
    assert len(train) == 12 and test == {"t0", "t1"} and gallery.class_names == ("t0",)


def test_images_of_a_class_are_thinned_to_its_first():
    pixels = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
    images = datasets.ImageSet([1, 0, 1, 0, 1, 0, 0], ["a", "b"], pixels)
    assert data._thin(images, 2).images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert data._thin(images, 0) is images


def test_a_difference_is_above_zero_where_both_intervals_are():
    both = {(t, b): statistics.Interval(1.0, 1.0, 3, (t, 2.0), (b, 2.0)).above_zero for t in (-1, 1) for b in (-1, 1)}
    assert both == {(-1, -1): False, (-1, 1): False, (1, -1): False, (1, 1): True}
    assert not statistics.Interval(1.0, 1.0, 3, (0.0, 2.0), (1.0, 2.0)).above_zero


def test_a_trial_that_diverged_is_refused(monkeypatch):
    history = types.SimpleNamespace(history={"loss": [1.0, float("nan")]})
    parts = types.SimpleNamespace(
        fit=lambda callbacks, verbose: history, callbacks=[], model=types.SimpleNamespace(embedder="embedder")
    )
    monkeypatch.setattr(trial.training, "assemble", lambda config, splits: parts)
    config = training.RunConfig.from_dict(RECIPE)
    with pytest.raises(ValueError, match="training diverged: loss nan"):
        trial._passing(config, None, None)
    history.history["loss"] = [float("nan"), 2.0]
    embedder, last, warned, _ = trial._passing(config, None, None)
    assert (embedder, last, warned) == ("embedder", {"loss": 2.0}, [])


def test_the_weights_of_a_trial_are_averaged_by_one_share():
    config = training.RunConfig.from_dict({**RECIPE, "backbone": {"name": "ResNet50", "weights": "imagenet"}})
    assert trial._averages(config) == []
    ((one),) = trial._averages(config.replace(averaging={"last": 3, "shares": [0.5]}))
    assert isinstance(one, trial.WeightAveraging)
    with pytest.raises(ValueError, match="one of the `shares`"):
        trial._averages(config.replace(averaging={"last": 3, "shares": [0.5, 0.25]}))


def test_settings_are_proposed_from_their_range_or_choices():
    asked = []
    proposal = types.SimpleNamespace(
        suggest_float=lambda name, low, high, log: asked.append((name, low, high, log)),
        suggest_categorical=lambda name, choices: asked.append((name, choices)),
    )
    for what in ([1e-4, 0.1, "log"], [0.0, 1.0, "linear"], [1, 2, 3], ["a", "b", "other"]):
        tuning._suggest(proposal, "x", what)
    assert asked == [("x", 1e-4, 0.1, True), ("x", 0.0, 1.0, False), ("x", [1, 2, 3]), ("x", ["a", "b", "other"])]


def test_a_proposal_is_scored_by_its_mean_over_splits_and_stopped_between_them(monkeypatch):
    optuna = pytest.importorskip("optuna")
    asked, reported, stop = [], [], []
    protocol = {**study.PROTOCOL, "splits": [0, 1, 2], "choice_seeds": [4, 5], "metric": "map@r"}

    def complete(wanted, folder, jobs, progress):
        asked.append((folder, jobs, [(job["stage"], job["split"], job["seed"]) for job in wanted]))
        return [{"metrics": {"map@r": 10.0 * job["split"] + job["seed"]}} for job in wanted]

    monkeypatch.setattr(tuning.runner, "complete", complete)
    proposal = types.SimpleNamespace(
        report=lambda value, step: reported.append((value, step)), should_prune=lambda: bool(stop)
    )
    score = lambda: tuning._score(a_study(protocol=protocol), "one", {}, pathlib.Path("out"), 3, proposal)  # noqa: E731
    assert score() == 14.5
    assert reported == [(4.5, 1), (9.5, 2), (14.5, 3)]
    assert asked[1] == (pathlib.Path("out/runs"), 3, [("validation", 1, 4), ("validation", 1, 5)])
    stop.append(True)
    with pytest.raises(optuna.TrialPruned):
        score()
    assert len(asked) == 4

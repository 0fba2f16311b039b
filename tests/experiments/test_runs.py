"""A study from its file to its page, on the embedded digits: choice, test, resumption, pages."""

import dataclasses
import json
import pathlib
import re
import threading

import keras
import numpy as np
import pytest

from tests import conclusions as conclusions_script
from tf_detreg import datasets, heads
from tf_detreg.experiments import ablation, cost, data, pages, runner, study, table, trial, tuning
from tf_detreg.training import RunConfig

ROOT = pathlib.Path(__file__).parents[2]
TEXT = """
name = "tiny"
kind = "choice"
title = "Tiny"
question = "Does it run?"
[run]
data = "digits"
backbone = { name = "small_cnn", width = 4, blocks = 2 }
features = true
head = { name = "Linear", dim = 8 }
classes = 0
images = 64
epochs = 1
k = [1, 2]
[protocol]
test = 0.4
splits = [0, 1]
seeds = [0, 1]
smoothness = true
baselines = ["linear"]
contrasts = [["flow", "linear"]]
[families.linear]
grid = { "head.dropout" = [0.0, 0.2] }
[families.flow]
head = { name = "RealNVP", depth = 2, hidden = 8, penalty = 0.1, measure = "isometric" }
grid = { "loss.alpha" = [16.0, 32.0] }
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def quick(monkeypatch):
    """Trials in this process, with a made-up result, so that what surrounds them is tested fast."""
    seen = []

    def pretend(job, folder):
        seen.append(job)
        head = job["config"]["head"]
        value = 50.0 + job["seed"] + (head["name"] == "RealNVP") + head.get("dropout", 0)
        metrics = {"recall@1": value, "recall@2": value, "seconds": 1.0, "parameters": 10, "train_recall@1": 90.0}
        record = {**job, "metrics": metrics, "versions": {"keras": "3"}, "machine": "m", "finished": "now"}
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        (pathlib.Path(folder) / f"{job['key']}.json").write_text(json.dumps(record))
        return "done"

    monkeypatch.setattr(runner, "_trial", pretend)
    return seen


def table_of(rows, tmp_path):
    return table.read(table.write(table.tidy(rows), tmp_path / "rows.csv"))


def test_classes_of_the_parts_are_disjoint_and_test_does_not_depend_on_the_share():
    whole = data.deal(100, 1 / 3, 0.5, seed=3)
    assert sorted(np.concatenate(whole)) == list(range(100))
    small = data.deal(100, 1 / 3, 0.5, seed=3, share=0.2)
    assert set(small[0]) < set(whole[0])
    np.testing.assert_array_equal(small[2], whole[2])
    assert not np.array_equal(data.deal(100, 1 / 3, 0.5, seed=4)[2], whole[2])
    with pytest.raises(ValueError, match="fewer than 2 classes"):
        data.deal(4, 0.1, 0.5, seed=0)


def test_the_parts_of_a_loader_are_dealt_as_one_set():
    splits = datasets.digits()
    whole = data.join(splits)
    assert len(whole) == sum(map(len, splits)) and whole.num_classes == 10
    np.testing.assert_array_equal(whole.images[-len(splits.test) :], splits.test.images)
    np.testing.assert_array_equal(whole.labels[-len(splits.test) :], splits.test.labels)
    others = dataclasses.replace(splits.test, class_names=[f"other {name}" for name in splits.test.class_names])
    assert data.join([splits.train, others]).num_classes == 20
    protocol = {**study.PROTOCOL, "test": 0.4, "images_per_class": 3}
    train, unseen, gallery = data.parts(RunConfig(data="digits"), protocol, 0, "validation")
    assert not set(train.class_names) & set(unseen.class_names) and gallery is None
    assert set(np.bincount(train.labels)) == {3}
    both, tested, _ = data.parts(RunConfig(data="digits"), protocol, 0, "test")
    assert set(both.class_names) == {*train.class_names, *unseen.class_names}
    assert not set(both.class_names) & set(tested.class_names)


def test_the_candidate_with_the_best_mean_is_chosen_in_each_split(tiny):
    """Not the one with the best single seed, nor the best of another split, family or stage."""
    found = study.read(tiny)
    one, two = found.families["linear"]
    values = {(0, 0): ([50, 90], [71, 72]), (0, 1): ([60, 61], [59, 58])}

    def row(recipe, stage, split, seed, value, family="linear"):
        job = runner.describe(found, stage, recipe, split, seed)
        return {**job, "family": family, "metrics": {"recall@1": value}}

    rows = [row(found.families["flow"][0], "validation", 0, 0, 99, "flow"), row(one, "test", 0, 0, 100)]
    for (_, split), scores in values.items():
        for recipe, seeds in zip((one, two), scores, strict=True):
            rows += [row(recipe, "validation", split, seed, value) for seed, value in enumerate(seeds)]
    assert runner.choose(found, rows, "linear", 0) == two
    assert runner.choose(found, rows, "linear", 1) == one


def test_choice_looks_at_validation_and_tests_the_chosen_alone(tiny, tmp_path, quick):
    found = study.read(tiny)
    rows = runner.run(found, tmp_path, jobs=0, progress=False)
    tests = [job for job in quick if job["stage"] == "test"]
    assert len(tests) == 2 * 2 * 2
    heads = [job["config"]["head"] for job in tests]
    assert {head.get("dropout") for head in heads if head["name"] == "Linear"} == {0.2}
    compared = {entry["name"]: entry for entry in table.compare(found, table_of(rows, tmp_path))}
    assert compared["linear"]["is_baseline"]
    assert compared["flow"]["difference"].mean == pytest.approx(0.8)
    assert compared["flow"]["difference"].count == 4
    # Candidate by candidate: 51 − 50 without dropout, 51 − 50.2 with it.
    contrast = table.contrast(found, table_of(rows, tmp_path), "flow", "linear", "recall@1")
    assert contrast.mean == pytest.approx(0.9) and contrast.count == 4


def test_a_table_measures_every_candidate_on_test_classes_beside_published_figures(tiny, tmp_path, quick):
    figures = '[[papers]]\ncandidate = "flow: loss.alpha 16.0"\nsource = "a paper"\n"recall@1" = 12.5\n'
    tiny.write_text(TEXT.replace('kind = "choice"', 'kind = "table"') + figures)
    found = study.read(tiny)
    rows = runner.run(found, tmp_path, jobs=0, progress=False)
    assert {job["stage"] for job in quick} == {"test"} and len(quick) == 4 * 2 * 2
    page = pages.study_section(found, table_of(rows, tmp_path))
    assert "| flow: loss.alpha 16.0 | 12.5 | 51.50 ± 0.58 | a paper |" in page
    assert "nothing was chosen" in page and page.count("12.5") == 1


def test_a_killed_study_goes_on_where_it_stopped(tiny, tmp_path, quick):
    found = study.read(tiny)
    runner.run(found, tmp_path, jobs=0, progress=False)
    done = len(quick)
    lost = sorted((tmp_path / "runs").glob("*.json"))[0]
    lost.unlink()
    runner.run(found, tmp_path, jobs=0, progress=False)
    assert len(quick) == done + 1 and lost.exists()


def test_key_changes_with_what_the_numbers_depend_on_and_with_nothing_else(tiny):
    found = study.read(tiny)
    recipe = found.families["linear"][0]
    key = runner.describe(found, "validation", recipe, 0, 0)["key"]
    assert key != runner.describe(found, "test", recipe, 0, 0)["key"]
    assert key != runner.describe(found, "validation", recipe, 1, 0)["key"]
    assert key != runner.describe(found, "validation", {**recipe, "epochs": 2}, 0, 0)["key"]
    assert key != runner.describe(found, "validation", {**recipe, "data": {"name": "glyphs"}}, 0, 0)["key"]
    found.protocol["seeds"].append(7)
    assert key == runner.describe(found, "validation", {**recipe, "strategy": "mirrored"}, 0, 0)["key"]


def test_report_lists_what_was_run_and_what_was_not(tiny, tmp_path, quick):
    ablation.ablate(tiny, tmp_path / "out", jobs=0, progress=False)
    waiting = TEXT.replace('"tiny"', '"later"').replace('"Tiny"', '"Later"')
    (tmp_path / "later.toml").write_text(waiting, encoding="utf-8")
    text = pages.report(tmp_path, tmp_path / "results.md", tmp_path / "plot.svg").read_text()
    assert "## Tiny" in text and "+0.80" in text and "Not run yet" in text and "later.toml" in text
    assert (tmp_path / "plot.svg").read_text().lstrip().startswith("<?xml")
    assert "<table>" in (tmp_path / "out" / "tiny" / "report.html").read_text()
    (tmp_path / "aside.toml").write_text(
        "headline = false\n" + TEXT.replace('"tiny"', '"aside"').replace('"Tiny"', '"Aside"')
    )
    ablation.ablate(tmp_path / "aside.toml", tmp_path / "out", jobs=0, progress=False)
    text = pages.report(tmp_path, tmp_path / "results.md", tmp_path / "plot.svg").read_text()
    assert "## Tiny" in text and "## Aside" in text
    assert "Tiny" in (picture := (tmp_path / "plot.svg").read_text()) and "Aside" not in picture
    tiny.write_text(TEXT.replace("[families.flow]", '[families.new]\nhead = "NICE"\n[families.flow]'))
    with pytest.raises(ValueError, match=r"lacks \['new'\].*ablate"):
        pages.report(tmp_path, tmp_path / "results.md")


def test_a_real_trial_repeats_to_the_bit_and_measures_smoothness(tiny):
    found = study.read(tiny)
    flow, linear = (RunConfig.from_dict(found.families[name][0]) for name in ("flow", "linear"))
    one, two = (trial.run(flow, found.protocol, 0, "validation") for _ in range(2))
    for name in ("recall@1", "metric_loss", "spectral", "secant_within_unseen"):
        assert one[name] == two[name]
    assert one["spectral"] >= one["frobenius"] > 0.5
    assert 0 < one["abs_log_scale"] < 0.5
    identity = trial.run(linear, found.protocol, 0, "validation")
    assert (identity["spectral"], identity["frobenius"]) == pytest.approx((1.0, 1.0))
    assert identity["log_det"] == 0.0
    assert identity["secant_between_unseen"] == pytest.approx(1.0)


def test_smoothness_traces_once_whatever_the_numbers_of_rows():
    """Of pairs within a class and between classes there are other numbers, of seen and of unseen classes too."""
    head = heads.RealNVP(4, depth=2, hidden=4)
    embedder = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), head])
    splits = datasets.digits()
    sizes, project = [], head.project

    def noted(features, **options):
        sizes.append(features.shape[0])
        return project(features, **options)

    head.project = noted
    trial.smoothness(embedder, splits.train.subset(range(50)), splits.test.subset(range(31)), seed=0)
    assert sizes == [None]


def test_a_trial_in_a_directory_equals_one_in_memory_and_is_not_trained_twice(tiny, tmp_path, monkeypatch):
    config = RunConfig.from_dict({**study.read(tiny).families["linear"][0], "features": False, "images": 32})
    protocol = {**study.PROTOCOL, "test": 0.4, "images_per_class": 20}
    here = trial.run(config, protocol, 0, "validation")
    kept = trial.run(config, protocol, 0, "validation", tmp_path / "kept")
    for name in ("recall@1", "map@r", "train_recall@1", "parameters"):
        assert here[name] == kept[name]
    monkeypatch.setattr("tf_detreg.training.stages.fit", lambda *args: pytest.fail("trained again"))
    assert trial.run(config, protocol, 0, "validation", tmp_path / "kept")["recall@1"] == kept["recall@1"]


def test_health_numbers_are_those_of_the_last_epoch_and_warnings_are_counted(tmp_path):
    # Nothing pushes: all embeddings run into one point.
    collapsing = RunConfig.from_dict(
        {
            "data": "digits",
            "backbone": {"name": "small_cnn", "width": 4, "blocks": 2},
            "head": {"name": "Linear", "dim": 4},
            "loss": {"name": "Contrastive", "negative_margin": 0.0},
            "optimizer": {"backbone_rate": 0.1, "head_rate": 0.1, "weight_decay": 0.0, "decay": "none"},
            "health": True,
            "classes": 2,
            "images": 2,
            "epochs": 4,
            "k": [1],
        }
    )
    protocol = {**study.PROTOCOL, "test": 0.4}
    with pytest.warns(RuntimeWarning, match="Epoch"):
        found = trial.run(collapsing, protocol, 0, "validation")
    assert found["health_within_between_ratio"] > 0.5 and found["health_effective_rank"] >= 1
    assert 1 <= found["health_first_warning"] <= found["health_last_warning"] <= 4
    assert found["health_warnings"] >= 1


def test_tune_searches_the_grid_and_resumes(tiny, tmp_path, quick):
    pytest.importorskip("optuna")
    best = tuning.tune(tiny, "linear", trials=4, output=tmp_path, jobs=0, progress=False)
    assert best["recipe"]["head"]["dropout"] == 0.2 and best["value"] == pytest.approx(50.2)
    assert {job["stage"] for job in quick} == {"validation"}
    again = tuning.tune(tiny, "linear", trials=2, output=tmp_path, jobs=0, progress=False)
    assert again["trials"] >= best["trials"]
    with pytest.raises(ValueError, match="family"):
        tuning.tune(tiny, "cubic", output=tmp_path)


def test_results_on_other_data_do_not_replace_the_study_s(tiny, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(runner, "_prepare_data", lambda job: None)
    options = {"jobs": 0, "progress": False}
    ablation.ablate(tiny, tmp_path / "out", **options)
    before = (tmp_path / "results" / "tiny.csv").read_bytes()
    quick.clear()
    ablation.ablate(tiny, tmp_path / "out", data="folder:photos", **options)
    assert {job["config"]["data"]["name"] for job in quick} == {"folder"}
    assert (tmp_path / "results" / "tiny.csv").read_bytes() == before
    assert table.read(tmp_path / "out" / "results" / "tiny.csv")
    with pytest.raises(ValueError, match="`images_per_second` must be a finite number above 0; received 0"):
        ablation.estimate(tiny, 0)


def test_numbers_of_processes_and_trials_are_checked_before_anything_runs(tiny, tmp_path):
    for call, options, said in (
        (tuning.tune, {"family": "linear", "jobs": -1}, "`jobs` must be a whole number, 0 or more; received -1"),
        (tuning.tune, {"family": "linear", "trials": 0}, "`trials` must be a whole number, 1 or more; received 0"),
        (ablation.ablate, {"jobs": -1}, "`jobs` must be a whole number, 0 or more; received -1"),
        (ablation.ablate, {"jobs": 2, "strategy": "mirrored"}, "`jobs` must be 0 with `strategy`"),
    ):
        with pytest.raises(ValueError, match=said):
            call(tiny, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_progress_is_shown_as_everywhere_and_the_former_log_warns(tiny, tmp_path, quick, capsys):
    pytest.importorskip("optuna")
    runs = {"ablate": (ablation.ablate, [tiny]), "tune": (tuning.tune, [tiny, "linear"])}
    for name, (function, given) in runs.items():
        options = {"output": tmp_path / name, "jobs": 0} | ({"trials": 2} if name == "tune" else {})
        function(*given, **options)
        said = capsys.readouterr()
        title, result = ("Trials", ": done") if name == "ablate" else ("Proposals", ": recall@1 50")
        assert said.out == "" and f"{title}: 1/" in said.err and result in said.err
        function(*given, **options, progress=False)
        assert capsys.readouterr() == ("", "")
        lines = []
        with pytest.warns(DeprecationWarning, match=rf"`{name}\(log=\)` is `{name}\(progress=\)` now"):
            function(*given, **options, log=lines.append)
        assert re.match(rf"\d+ {title.lower()}, \d+ of them done before", lines[0]) and capsys.readouterr() == ("", "")
        assert name == "ablate" or lines[1].startswith("[1/2] recall@1 ")


def test_tune_in_small_searches_the_grid_too(tiny, tmp_path, quick):
    """A family's small version has one candidate, and so no grid of its own."""
    pytest.importorskip("optuna")
    best = tuning.tune(tiny, "flow", trials=3, output=tmp_path, jobs=0, smoke=True, progress=False)
    assert best["recipe"]["loss"]["alpha"] in (16.0, 32.0) and best["recipe"]["head"]["depth"] == 2
    assert {job["config"]["loss"]["alpha"] for job in quick} <= {16.0, 32.0}
    tiny.write_text(TEXT.replace('"loss.alpha" = [16.0, 32.0]', '"head.depth" = [4, 6], "loss.alpha" = [16.0, 32.0]'))
    tuning.tune(tiny, "flow", trials=3, output=tmp_path / "sizes", jobs=0, smoke=True, progress=False)
    assert {job["config"]["head"]["depth"] for job in quick if job["config"]["head"]["name"] == "RealNVP"} == {2}
    tiny.write_text(TEXT.replace('grid = { "loss.alpha" = [16.0, 32.0] }', ""))
    with pytest.raises(ValueError, match="has no grid"):
        tuning.tune(tiny, "flow", output=tmp_path, smoke=True)


def test_workers_of_a_pool_do_the_same_as_this_process(tiny, tmp_path):
    found = study.read(tiny)
    job = runner.describe(found, "validation", found.families["linear"][0], 0, 0)
    here, there = (runner.complete([job], tmp_path / str(jobs), jobs, False)[0]["metrics"] for jobs in (0, 1))
    assert here["recall@1"] == pytest.approx(there["recall@1"], abs=1.0)


def test_workers_of_a_pool_are_replaced_however_many_trials_wait():
    found = []
    thread = threading.Thread(target=lambda: found.extend(runner.in_pool(abs, range(-7, 0), 2, 2)), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]


def test_an_error_in_a_pool_ends_it():
    with pytest.raises(TypeError, match="bad operand"):
        list(runner.in_pool(abs, [1, "two", 3], 1, 10))


def test_cost_counts_epochs_times_images_of_every_trial(tiny):
    found = study.read(tiny)
    counted = cost.estimate(found, 10.0, count=lambda config, protocol, split, stage: 100 if stage == "test" else 60)
    # 4 candidates × 2 splits × 1 seed on validation classes, then 2 families × 2 splits × 2 seeds on test classes.
    assert (counted.trials, counted.images) == (8 + 8, 8 * 60 + 8 * 100)
    assert counted.hours == pytest.approx(counted.images / 10 / 3600)
    assert cost.estimate(found).images > 10_000


CURVE = (
    TEXT.replace('"tiny"', '"curve"').replace("smoothness = true", "retrain = false")
    + """
[curve]
"train_classes, epochs" = [[2, 2], [4, 1]]
"""
)


def test_a_curve_goes_from_its_file_to_one_table_and_page(tmp_path, quick):
    path = tmp_path / "curve.toml"
    path.write_text(CURVE, encoding="utf-8")
    page = ablation.ablate(path, tmp_path / "out", jobs=0, progress=False)
    assert {(job["protocol"]["train_classes"], job["config"]["epochs"]) for job in quick} == {(2, 2), (4, 1)}
    found = study.read(path)
    rows = table.read(tmp_path / "results" / "curve.csv", found)
    assert {row["study"] for row in rows} == {"curve-2", "curve-4"} and len(rows) == 2 * (8 + 8)
    assert "<svg" in page.read_text()
    text = pages.report(tmp_path, tmp_path / "results.md", tmp_path / "plot.svg").read_text()
    assert "| recall@1 at `train_classes` | 2 | 4 |" in text and "![Tiny](curve.svg)" in text
    # The best linear candidate has dropout 0.2, and the flow is 1 above it but for that.
    lines = [line for line in text.splitlines() if line.startswith("| flow")]
    assert lines[0] == "| flow | 51.50 ± 0.58 | 51.50 ± 0.58 |"
    assert lines[1].count("+0.80 [+0.80, +0.80]") == 2
    assert "was trained again on the train classes and tested once" in text
    assert (tmp_path / "curve.svg").read_text().count("<path") > 10
    assert cost.estimate(found, count=lambda *trial: 10).images == 10 * 16 * (2 + 1)


def test_a_curve_that_lacks_a_point_is_told(tmp_path, quick):
    path = tmp_path / "curve.toml"
    path.write_text(CURVE, encoding="utf-8")
    ablation.ablate(path, tmp_path / "out", jobs=0, progress=False)
    path.write_text(CURVE.replace("[4, 1]", "[4, 1], [5, 1]"))
    with pytest.raises(ValueError, match=r"lacks \['flow', 'linear'\]"):
        pages.report(tmp_path, tmp_path / "results.md")


def test_train_classes_are_the_first_of_a_split_and_test_classes_stay(monkeypatch):
    protocol = {**study.PROTOCOL, "test": 0.4}
    few = {**protocol, "train_classes": 2}
    train, unseen, _ = data.parts(RunConfig(data="digits"), few, 0, "validation")
    whole, same, _ = data.parts(RunConfig(data="digits"), protocol, 0, "validation")
    assert train.class_names == whole.class_names[:2] and unseen.class_names == same.class_names
    trained, tested, _ = data.parts(RunConfig(data="digits"), {**few, "retrain": False}, 0, "test")
    assert trained.class_names == train.class_names
    assert tested.class_names == data.parts(RunConfig(data="digits"), protocol, 0, "test")[1].class_names
    again, _, _ = data.parts(RunConfig(data="digits"), few, 0, "test")
    assert set(again.class_names) == {*train.class_names, *unseen.class_names}
    with pytest.raises(ValueError, match=r"`train_classes` must be at most the 4 train classes.*received 5"):
        data.parts(RunConfig(data="digits"), {**few, "train_classes": 5}, 0, "validation")


def test_what_a_protocol_has_had_only_later_changes_no_key_at_its_default(tiny, monkeypatch):
    found = study.read(tiny)
    recipe = found.families["linear"][0]
    key = runner.describe(found, "test", recipe, 0, 0)["key"]
    monkeypatch.setattr(runner, "_ADDED", {})  # As before there were any.
    assert runner.describe(found, "test", recipe, 0, 0)["key"] == key
    monkeypatch.undo()
    for name, value in (("train_classes", 2), ("retrain", False)):
        changed = dataclasses.replace(found, protocol={**found.protocol, name: value})
        assert runner.describe(changed, "test", recipe, 0, 0)["key"] != key


OLD = sorted((ROOT / "studies" / "results").glob("*.csv"))


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.stem)
def test_tables_of_version_0_1_belong_to_their_studies(path):
    """Every row of every table is one of its study's candidates, and every candidate has rows."""
    found = study.read(ROOT / "studies" / f"{path.stem}.toml")
    rows = table.read(path, found)
    points = found.points.values() or [found]
    known = {study.signature(r): family for point in points for family, rs in point.families.items() for r in rs}
    assert {study.signature(row["recipe"]) for row in rows} == set(known)
    assert all(known[study.signature(row["recipe"])] == row["family"] or found.kind == "ablation" for row in rows)


def decimals(text):
    """Return the numbers with decimal places, without their signs."""
    return set(re.findall(r"\d+\.\d+", text))


def test_every_number_that_is_quoted_stands_in_a_table_or_is_printed():
    said = conclusions_script.printed()
    conclusions, tables = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("\n---\n", 1)
    known = decimals(tables) | decimals(said)
    known |= {f"{float(number):.1f}" for number in known}
    assert len(decimals(conclusions)) > 100
    assert not decimals(conclusions) - known


def test_the_page_of_results_and_its_conclusions_follow_from_the_tables(tmp_path):
    written = pages.report(ROOT / "studies", tmp_path / "results.md").read_text(encoding="utf-8")
    written = written.replace(f"{ROOT.as_posix()}/", "")
    kept = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    numbers = lambda text: [line for line in text.splitlines() if line.startswith("| ")]  # noqa: E731
    assert numbers(written) == numbers(kept)
    said = conclusions_script.printed()
    assert "glyphs-heads: R@1 on validation classes" in said and said.count("pairs") > 50

"""A study from its file to its page, on the embedded digits: choice, test, resumption, pages."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tf_detreg import regularizers
from tf_detreg.experiments import ablation, data, pages, runner, study, table, texts, trial, tuning

TEXT = """
name = "tiny"
kind = "choice"
title = "Tiny"
question = "Does it run?"
[data]
source = "digits"
features = "pixels"
[protocol]
test = 0.4
splits = [0, 1]
seeds = [0, 1]
recall_at = [1, 2]
smoothness = true
baselines = ["linear"]
contrasts = [["flow", "linear"]]
[recipe]
dim = 8
epochs = 1
batch = 64
[families.linear]
grid = { "head.dropout" = [0.0, 0.2] }
[families.flow]
head = { kind = "RealNVP", depth = 2, hidden = 8, penalty = 0.1, measure = "isometric" }
grid = { "loss.alpha" = [16.0, 32.0] }
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(data.CACHE_VARIABLE, str(tmp_path_factory.getbasetemp() / "cache"))


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
        value = (
            50.0 + job["seed"] + (job["recipe"]["head"]["kind"] == "RealNVP") + job["recipe"]["head"].get("dropout", 0)
        )
        metrics = {"recall@1": value, "recall@2": value, "seconds": 1.0, "parameters": 10, "train_recall@1": 90.0}
        record = {**job, "metrics": metrics, "versions": {"keras": "3"}, "machine": "m", "finished": "now"}
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        (pathlib.Path(folder) / f"{job['key']}.json").write_text(json.dumps(record))
        return "done"

    monkeypatch.setattr(runner, "_trial", pretend)
    return seen


def test_classes_of_the_parts_are_disjoint_and_test_does_not_depend_on_the_share():
    whole = data.deal(100, 1 / 3, 0.5, seed=3)
    assert sorted(np.concatenate(whole)) == list(range(100))
    small = data.deal(100, 1 / 3, 0.5, seed=3, share=0.2)
    assert set(small[0]) < set(whole[0])
    np.testing.assert_array_equal(small[2], whole[2])
    assert not np.array_equal(data.deal(100, 1 / 3, 0.5, seed=4)[2], whole[2])


def test_choice_looks_at_validation_and_tests_the_chosen_alone(tiny, tmp_path, quick):
    found = study.read(tiny)
    rows = runner.run(found, tmp_path, jobs=0, log=lambda text: None)
    tests = [job for job in quick if job["stage"] == "test"]
    assert len(tests) == 2 * 2 * 2
    assert {job["recipe"]["head"].get("dropout") for job in tests if job["recipe"]["head"]["kind"] == "Linear"} == {0.2}
    compared = {entry["name"]: entry for entry in table.compare(found, table_of(rows, tmp_path))}
    assert compared["linear"]["is_baseline"]
    assert compared["flow"]["difference"].mean == pytest.approx(0.8)
    assert compared["flow"]["difference"].count == 4
    # Candidate by candidate: 51 − 50 without dropout, 51 − 50.2 with it.
    contrast = table.contrast(found, table_of(rows, tmp_path), "flow", "linear", "recall@1")
    assert contrast.mean == pytest.approx(0.9) and contrast.count == 4


def test_a_killed_study_goes_on_where_it_stopped(tiny, tmp_path, quick):
    found = study.read(tiny)
    runner.run(found, tmp_path, jobs=0, log=lambda text: None)
    done = len(quick)
    lost = sorted((tmp_path / "runs").glob("*.json"))[0]
    lost.unlink()
    runner.run(found, tmp_path, jobs=0, log=lambda text: None)
    assert len(quick) == done + 1 and lost.exists()


def test_key_changes_with_what_the_numbers_depend_on_and_with_nothing_else(tiny):
    found = study.read(tiny)
    recipe = found.families["linear"][0]
    key = runner.describe(found, "validation", recipe, 0, 0)["key"]
    assert key != runner.describe(found, "test", recipe, 0, 0)["key"]
    assert key != runner.describe(found, "validation", recipe, 1, 0)["key"]
    assert key != runner.describe(found, "validation", {**recipe, "epochs": 2}, 0, 0)["key"]
    found.protocol["seeds"].append(7)
    assert key == runner.describe(found, "validation", recipe, 0, 0)["key"]


def test_report_lists_what_was_run_and_what_was_not(tiny, tmp_path, quick):
    ablation.ablate(tiny, tmp_path / "out", jobs=0, log=lambda text: None)
    waiting = TEXT.replace('"tiny"', '"later"').replace('"Tiny"', '"Later"')
    (tmp_path / "later.toml").write_text(waiting, encoding="utf-8")
    text = pages.report(tmp_path, tmp_path / "results.md", tmp_path / "plot.svg").read_text()
    assert "## Tiny" in text and "+0.80" in text and "Not run yet" in text and "later.toml" in text
    assert (tmp_path / "plot.svg").read_text().lstrip().startswith("<?xml")
    assert "<table>" in (tmp_path / "out" / "tiny" / "report.html").read_text()


def test_picture_keeps_to_headline_studies(tiny, tmp_path, quick):
    ablation.ablate(tiny, tmp_path / "out", jobs=0, log=lambda text: None)
    (tmp_path / "aside.toml").write_text(
        "headline = false\n" + TEXT.replace('"tiny"', '"aside"').replace('"Tiny"', '"Aside"')
    )
    ablation.ablate(tmp_path / "aside.toml", tmp_path / "out", jobs=0, log=lambda text: None)
    text = pages.report(tmp_path, tmp_path / "results.md", tmp_path / "plot.svg").read_text()
    assert "## Tiny" in text and "## Aside" in text
    assert "Tiny" in (picture := (tmp_path / "plot.svg").read_text()) and "Aside" not in picture


def test_report_asks_for_the_families_that_a_study_got_since(tiny, tmp_path, quick):
    ablation.ablate(tiny, tmp_path / "out", jobs=0, log=lambda text: None)
    tiny.write_text(TEXT.replace("[families.flow]", '[families.new]\nhead = { kind = "NICE" }\n[families.flow]'))
    with pytest.raises(ValueError, match=r"lacks \['new'\].*ablate"):
        pages.report(tmp_path, tmp_path / "results.md")


def test_a_real_trial_repeats_to_the_bit_and_measures_smoothness(tiny):
    found = study.read(tiny)
    arrays = data.load(found.data)
    train, validation, _ = data.deal(arrays.num_classes, 1 / 3, 0.4, 0)
    recipe = found.families["flow"][0]
    one, two = (trial.run(recipe, arrays.select(train), arrays.select(validation), 0, found.protocol) for _ in range(2))
    for name in ("recall@1", "metric_loss", "spectral", "secant_within_unseen"):
        assert one[name] == two[name]
    assert one["spectral"] >= one["frobenius"] > 0.5
    assert 0 < one["abs_log_scale"] < 0.5


def test_smoothness_of_a_linear_head_is_one(tiny):
    found = study.read(tiny)
    arrays = data.load(found.data)
    recipe = found.families["linear"][0]
    measured = trial.run(recipe, arrays.select([0, 1, 2, 3]), arrays.select([4, 5]), 0, found.protocol)
    assert (measured["spectral"], measured["frobenius"]) == pytest.approx((1.0, 1.0))
    assert measured["log_det"] == 0.0
    assert measured["secant_between_unseen"] == pytest.approx(1.0)


def test_balanced_batches_hold_so_many_classes_and_differ_from_epoch_to_epoch():
    labels = np.repeat(np.arange(10), 12).astype("int32")
    arrays = data.Arrays(np.arange(120.0)[:, None], labels, None, tuple("abcdefghij"))
    batches = trial._batches(arrays, 20, seed=0, classes=5)
    assert int(batches.cardinality()) == 6
    first, second = ([(x.numpy().ravel(), y.numpy()) for x, y in batches] for _ in range(2))
    assert all(np.bincount(y, minlength=10).max() == 4 and len(np.unique(y)) == 5 for _, y in first)
    assert all((labels[x.astype(int)] == y).all() for x, y in first)
    assert any((a[0] != b[0]).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"head": {"kind": "RealNVP", "depth": 2, "hidden": 8}, "rival": {"penalty": -0.1, "loss_weight": 0.5}},
        {"head": {"kind": "RealNVP", "depth": 2, "hidden": 8, "penalty": 0.1}, "interpolation": 0.4, "classes": 4},
        {"loss": {"kind": "TripletSemiHard"}},
        {"head": {"kind": "ResidualMLP", "blocks": 1, "hidden": 8}},
    ],
    ids=["dueling", "interpolation", "pair loss", "residual"],
)
def test_recipes_train(tiny, change):
    found = study.read(tiny)
    arrays = data.load(found.data)
    recipe = {**found.families["linear"][0], **change}
    protocol = {**found.protocol, "smoothness": False}
    measured = trial.run(recipe, arrays.select([0, 1, 2, 3]), arrays.select([4, 5]), 0, protocol)
    assert 0 <= measured["recall@1"] <= 100 and measured["parameters"] > 0


def test_unknown_parts_are_named(tiny):
    found = study.read(tiny)
    arrays = data.load(found.data)
    recipe = {**found.families["linear"][0], "head": {"kind": "Magic"}}
    with pytest.raises(ValueError, match="Magic"):
        trial.run(recipe, arrays.select([0, 1]), arrays.select([2, 3]), 0, found.protocol)


def test_missing_data_says_where_to_put_it(monkeypatch):
    monkeypatch.setenv("TF_DETREG_DATA", "/nonexistent")
    with pytest.raises(ValueError, match="TF_DETREG_DATA"):
        data.load({"source": "emoji", "features": "pixels"})
    with pytest.raises(ValueError, match=r"data\.source"):
        data.load({"source": "elsewhere"})


def test_a_second_head_of_any_kind_gets_its_loss(tiny):
    found = study.read(tiny)
    arrays = data.load(found.data).select([0, 1, 2, 3])
    head = {"kind": "ResidualMLP", "blocks": 1, "hidden": 8}
    for rival in ({"loss_weight": 0.5}, {"penalty": 0.0, "loss_weight": 0.5}):
        model = trial.build({**found.families["linear"][0], "head": head, "rival": rival}, arrays)
        assert type(model.rival).__name__ == "ResidualMLP" and model.rival_loss_weight == 0.5


def test_the_rival_may_have_proxies_of_its_own(tiny):
    found = study.read(tiny)
    arrays = data.load(found.data).select([0, 1, 2, 3])
    recipe = {**found.families["linear"][0], "loss": {"kind": "ProxyAnchor"}}
    shared, own = (
        trial.build({**recipe, "rival": {"loss_weight": 1.0, **more}}, arrays) for more in ({}, {"proxies": "own"})
    )
    assert shared.rival_loss is shared.loss_function
    assert own.rival_loss is not own.loss_function


def test_a_backbone_starts_from_a_weights_file_among_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_DETREG_DATA", str(tmp_path))
    assert data.weights(None) is None
    assert data.weights("imagenet") == "imagenet"
    with pytest.raises(ValueError, match="TF_DETREG_DATA"):
        data.weights("trained.npz")
    (tmp_path / "trained.npz").touch()
    assert data.weights("trained.npz") == str(tmp_path / "trained.npz")


def test_emoji_images_come_at_the_size_asked_for(tmp_path):
    write_emoji(tmp_path / "set.npz", np.arange(4 * 8 * 8 * 3, dtype="uint8").reshape(4, 8, 8, 3))
    whole, half = (
        data.load({"source": "emoji", "path": str(tmp_path / "set.npz"), "without": ["copy"], **size})
        for size in ({}, {"image_size": 4})
    )
    assert whole.inputs.shape == (4, 8, 8, 3) and whole.names == ("cat", "dog") and list(whole.groups) == [0, 1, 0, 1]
    blocks = whole.inputs.reshape(4, 4, 2, 4, 2, 3).astype(float).mean(axis=(2, 4))
    np.testing.assert_allclose(half.inputs, blocks, atol=1.0)


def write_emoji(path, images):
    """A set of two classes in two styles of different families, and a style without images."""
    png = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        png.append(np.frombuffer(buffer.getvalue(), "uint8"))
    styles = [{"name": name, "family": family} for name, family in (("a", "A"), ("b", "B"), ("copy", "A"))]
    info = {"classes": [{"label": "cat"}, {"label": "dog"}], "styles": styles}
    np.savez(
        path,
        png=np.concatenate(png),
        offset=np.cumsum([0, *map(len, png)]),
        label=np.array([0, 0, 1, 1], "int16"),
        style=np.array([0, 1, 0, 1], "int16"),
        info=np.frombuffer(json.dumps(info).encode(), "uint8"),
    )


def test_tune_searches_the_grid_and_resumes(tiny, tmp_path, quick):
    pytest.importorskip("optuna")
    best = tuning.tune(tiny, "linear", trials=4, output=tmp_path, jobs=0, log=lambda text: None)
    assert best["recipe"]["head"]["dropout"] == 0.2 and best["value"] == pytest.approx(50.2)
    assert {job["stage"] for job in quick} == {"validation"}
    again = tuning.tune(tiny, "linear", trials=2, output=tmp_path, jobs=0, log=lambda text: None)
    assert again["trials"] >= best["trials"]
    with pytest.raises(ValueError, match="family"):
        tuning.tune(tiny, "cubic", output=tmp_path)


def table_of(rows, tmp_path):
    return table.read(table.write(table.tidy(rows), tmp_path / "rows.csv"))


def test_workers_of_a_pool_do_the_same_as_this_process(tiny, tmp_path):
    found = study.read(tiny)
    recipe = found.families["linear"][0]
    job = runner.describe(found, "validation", recipe, 0, 0)
    here, there = (
        runner.complete([job], tmp_path / str(jobs), jobs, lambda text: None)[0]["metrics"] for jobs in (0, 1)
    )
    assert here["recall@1"] == pytest.approx(there["recall@1"], abs=1.0)


TINY_BERT = pathlib.Path(__file__).parents[1] / "data" / "tiny_bert"
STUDIES = sorted((pathlib.Path(__file__).parents[2] / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_family_of_the_repository_s_studies_can_be_built(path, monkeypatch):
    # A stand-in of the same kind: its vectors are no matter here, and the real one is a package of its own.
    monkeypatch.setattr(texts, "sentence_encoder", lambda: regularizers.SentenceEncoder(TINY_BERT))
    monkeypatch.setattr(data, "weights", lambda name: None)  # a file among the data, which are not at hand
    found = study.read(path)
    shape = (24, 32, 32, 3) if "features" not in found.data else (24, 12)
    arrays = data.Arrays(np.zeros(shape, "float32"), np.repeat(np.arange(6), 4).astype("int32"), None, tuple("abcdef"))
    for recipes in found.families.values():
        assert trial.build({**recipes[-1], "dim": 8}, arrays).embedder.output_shape == (None, 8)


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_smoke_version_of_every_study_runs(path, tmp_path):
    page = ablation.ablate(path, tmp_path, jobs=0, smoke=True)
    assert "<table>" in page.read_text()

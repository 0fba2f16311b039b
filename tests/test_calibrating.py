"""Decisions from the command line: fitted on a run, kept with it and with an index, used by `search`, watched."""

import json
import re

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.eager import eagerly
from tf_detreg import calibrating, cli, retrieval, training
from tf_detreg.index import Index, Shards, splitting
from tf_detreg.retrieval import calibration

SMALL = {
    "image_size": 16,
    "backbone": {"name": "small_cnn"},
    "head": {"name": "RealNVP", "dim": 16, "depth": 2, "hidden": 64, "penalty": 10.0},
    "loss": "SupCon",
    "classes": 8,
    "images": 4,
    "epochs": 2,
}


def command(*arguments) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout  # without the progress that a slow machine shows


def picture(rng, colours) -> np.ndarray:
    """Four colored squares and a little noise."""
    pixels = np.kron(colours.reshape(2, 2, 3), np.ones((8, 8, 1)))
    return np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """80 classes of 8 images; the last 20 are validation, and the 20 before test classes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for label, colours in enumerate(rng.integers(0, 256, (80, 4, 3))):
        part = "train" if label < 40 else "test" if label < 60 else "validation"
        (folder / part / f"c{label}").mkdir(parents=True)
        for number in range(8):
            Image.fromarray(picture(rng, colours)).save(folder / part / f"c{label}" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    rows = ["path,label,split"]
    rows += [f"{path},{path.parent.name},{path.parent.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (photos / "all.csv").write_text("\n".join(rows), encoding="utf-8")
    directory = tmp_path_factory.mktemp("runs") / "photos"
    config = training.RunConfig.from_dict({"data": str(photos / "all.csv"), **SMALL})
    with eagerly():
        training.train(config, directory, verbose=0)
    return directory


@pytest.fixture(scope="module")
def decided(run, photos, tmp_path_factory):
    """The run with a decision, and an index of half the test classes that keeps it."""
    place = tmp_path_factory.mktemp("index") / "shop"
    command("index", run, *[photos / "test" / f"c{label}" for label in range(40, 50)], "--to", place)
    said = command("calibrate", run, "--target", "0.1", "--index", place)
    assert "Fitted on 20 classes, 160 images" in said and "On other classes: 20 classes" in said
    assert (run / "decision.json").is_file() and (run / "reliability.png").stat().st_size > 1000
    return place


def test_a_picture_that_cannot_be_drawn_does_not_keep_the_decision_from_the_index(decided, run, tmp_path, monkeypatch):
    made, place = Index.load(decided).decision, Index.load(decided).save(tmp_path / "shop")
    Index.load(place).decision = None

    def fails(self, path):
        raise ImportError("no package draws here")

    monkeypatch.setattr("tf_detreg.calibrating.calibrate_run", lambda *given, **options: made)
    monkeypatch.setattr(type(made), "plot_reliability", fails)
    with pytest.raises(ImportError, match="no package draws here"):
        command("calibrate", run, "--index", place)
    assert Index.load(place).decision == made


def test_a_noise_picture_is_not_in_the_catalogue(decided, photos, tmp_path):
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "noise.png")
    known = photos / "test" / "c40" / "0.png"
    said = command("search", decided, tmp_path / "noise.png", known, "-k", 2, "--picture", tmp_path / "n.png")
    noise, found = said.splitlines()[:2]
    assert noise.startswith("noise.png: no match; below the threshold: ") and "%)" in noise
    assert found.startswith("0.png: c40/0.png 1.000 (") and "no match" not in found
    rows = command("search", decided, tmp_path / "noise.png", known, "-k", 2, "--picture", tmp_path / "n.png", "--json")
    noise, found = map(json.loads, rows.splitlines())
    assert noise["match"] is False and found["match"] is True
    assert found["neighbors"][0]["accepted"] is True and 0 <= noise["neighbors"][0]["probability"] < 0.5


def test_a_run_uses_its_decision_and_without_one_says_nothing(decided, run, photos, tmp_path):
    known = photos / "test" / "c40" / "0.png"
    assert "%)" in command("search", run, known, "-k", 1, "--picture", tmp_path / "n.png")
    (run / "decision.json").rename(run / "aside.json")
    try:
        assert "%)" not in command("search", run, known, "-k", 1, "--picture", tmp_path / "n.png")
        assert "%)" in command("search", decided, known, "-k", 1, "--picture", tmp_path / "n.png")
        row = json.loads(command("search", run, known, "-k", 1, "--picture", tmp_path / "n.png", "--json"))
        assert row["match"] is None and set(row["neighbors"][0]) == {"name", "score"}
    finally:
        (run / "aside.json").rename(run / "decision.json")


def test_evaluate_holds_classes_out(run):
    said = command("evaluate", run, "--open-set", "--no-page")
    assert "| nearest |" in said and "| density |" in said
    assert json.loads((run / "open_set.json").read_text())["classes"] == 20


def test_monitor_says_when_queries_have_changed(decided, photos, tmp_path):
    same = json.loads(command("monitor", decided, *[photos / "test" / f"c{n}" for n in range(40, 50)], "--json"))
    assert same["queries"] == 80 and same["verdict"] == "too few queries" and same["unknown"] < 0.2
    rng = np.random.default_rng(2)
    for number in range(120):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"{number}.png")
    said = command("monitor", decided, tmp_path)
    assert "fit again" in said and "120 queries" in said


def test_shards_keep_a_decision_as_an_index_does(decided, run, photos, tmp_path):
    queries = [photos / "test" / f"c{n}" for n in range(40, 45)]
    with Index.load(decided) as whole:
        wanted, whole_copy = whole.decision, Index(whole.embeddings, whole.ids, list(whole.rows()), whole.fingerprint)
    splitting.split(whole_copy, tmp_path / "shards", 3)
    said = command("calibrate", run, "--target", "0.1", "--index", tmp_path / "shards")
    assert said.splitlines()[-1].split() == ["Index", str(tmp_path / "shards")]
    with Shards.load(tmp_path / "shards") as shards:
        assert [index.decision for index in shards.indexes] == [wanted] * 3
    one, several = (
        json.loads(command("monitor", place, *queries, "--json")) for place in (decided, tmp_path / "shards")
    )
    assert one == several


def test_what_cannot_be_is_told_before_anything_is_embedded(decided, run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "embed", lambda *_, **__: pytest.fail("images are embedded"))
    before = (run / "decision.json").read_bytes()
    with pytest.raises(ValueError, match=r"needs at least 200 images .* there are 160, from which 0\.063 or more"):
        command("calibrate", run, "--target", "0.05")
    with pytest.raises(ValueError, match=r"`target` must be a number in \(0, 1\]; received 5"):
        command("calibrate", run, "--target", "5")
    with Index.load(decided) as index:
        Index(index.embeddings, fingerprint="0123456789abcdef").save(tmp_path / "foreign")
    with pytest.raises(ValueError, match="another model"):
        command("calibrate", run, "--target", "0.1", "--index", tmp_path / "foreign")
    with pytest.raises(ValueError, match="`where` cannot be read"):
        command("search", decided, photos / "test" / "c40" / "0.png", "--where", "price <", "--json")
    assert (run / "decision.json").read_bytes() == before


@pytest.mark.parametrize("images", [10, 11, 112, 160, 333, 1000, 99_999, 10**7])
def test_the_target_that_an_error_names_can_be_given(images):
    with pytest.raises(ValueError, match="or more can be stated") as refused:
        calibration.checked_target(1e-9, images)
    least = float(re.search(r"from which (\S+) or more", str(refused.value))[1])
    assert calibration.checked_target(least, images) == least and least <= 1.1 * 10 / images


def test_monitor_needs_a_decision(run, photos, tmp_path):
    done = training.load_run(run)
    Index(np.eye(16), metadata=[{"run": str(run)}] * 16).save(tmp_path / "plain")
    (run / "decision.json").rename(run / "aside.json")
    try:
        with pytest.raises(ValueError, match="Neither the index"):
            calibrating.monitor_index(tmp_path / "plain", [photos / "test" / "c40"])
    finally:
        (run / "aside.json").rename(run / "decision.json")
    assert done.finished


def test_classes_that_were_trained_on_are_noted(run, monkeypatch):
    done = training.load_run(run)
    splits = done.splits()
    monkeypatch.setattr(type(done), "splits", lambda self: splits._replace(validation=splits.train))
    decision = calibrating.calibrate_run(done, 0.1)
    assert calibrating.TRAINED_ON in decision.notes
    monkeypatch.setattr(type(done), "splits", lambda self: splits._replace(validation=splits.train.subset([])))
    with pytest.raises(ValueError, match="no validation images to fit a threshold on"):
        calibrating.calibrate_run(done, 0.1)


def test_stability_index_by_hand():
    points = np.repeat(np.eye(30), 40, axis=0) + 0.1 * np.random.default_rng(0).standard_normal((1200, 30))
    decision = retrieval.calibrate(points, np.repeat(np.arange(30), 40), target=0.01, resamples=50)
    edges = np.asarray(decision.quantiles)
    inside = np.concatenate([[edges[0] - 0.01], (edges[:-1] + edges[1:]) / 2, [edges[-1] + 0.001]])
    even = retrieval.monitor(decision, np.repeat(inside, 1000))
    assert even.stability == pytest.approx(0, abs=1e-6) and even.verdict == "stable"
    moved = retrieval.monitor(decision, np.repeat(inside, [3000, *[1000] * 8, 3000]))
    shares = np.array([3, *[1] * 8, 3]) / 14
    assert moved.stability == pytest.approx(((shares - 0.1) * np.log(shares / 0.1)).sum(), rel=1e-2)
    for bad in ([], [np.nan], [[0.5]], ["a"]):
        with pytest.raises(ValueError, match="`scores` must be finite numbers"):
            retrieval.monitor(decision, bad)


def test_a_density_needs_a_flow_head():
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.UnitNormalization()])
    with pytest.raises(ValueError, match="no flow head"):
        retrieval.FlowDensity.of(model, None)

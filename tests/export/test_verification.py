"""`export.verify` runs artifacts in clean processes, says how they differ, and refuses what is too far off."""

import io
import json
import shutil
import subprocess
import zipfile

import keras
import numpy as np
import pytest
from rich.console import Console

from tf_detreg import export
from tf_detreg.export import verification
from tf_detreg.export.verification import Check, recall_at_1


@pytest.fixture(scope="module")
def small_file(embedder, tmp_path_factory):
    return export.litert(embedder, tmp_path_factory.mktemp("v") / "m.tflite", "dynamic")


def test_the_table_of_good_artifacts(embedder, exported, small_file, images, labels, expected):
    report = export.verify(embedder, [exported, small_file], images, labels, repeats=3)
    assert report.passed
    assert report.require() is report
    assert report.recall_at_1 == recall_at_1(expected, labels)
    saved, lite = report.checks
    assert (saved.engine, lite.engine) == ("tensorflow", "litert")
    assert saved.cosine_min > 0.999999
    assert saved.recall_points == 0
    assert set(lite.latency_ms) == {1, 32}
    assert len(report.to_markdown().splitlines()) == 4
    assert json.loads(report.to_json())["checks"][1]["precision"] == "dynamic"


def test_another_model_is_caught(embedder, small_file, images, labels):
    keras.utils.set_random_seed(11)
    other = keras.models.clone_model(embedder)
    report = export.verify(other, small_file, images, labels, latency=())
    assert "another model" in report.checks[0].failures[0]
    assert not report.passed
    with pytest.raises(ValueError, match="Not published"):
        report.require()


def test_limits_can_be_tightened(embedder, small_file, images):
    report = export.verify(
        embedder, small_file, images, latency=(), limits={"dynamic": export.Limits(cosine=1.1, recall_points=0.0)}
    )
    assert "below 1.1" in report.checks[0].failures[0]
    assert "**no**" in report.to_markdown()


def test_recall_at_1_has_the_rules_of_evaluate():
    rows = np.eye(3)[[0, 0, 1, 2, 1]] + 0.01 * np.arange(5)[:, None]
    assert recall_at_1(rows, np.array([0, 0, 1, 2, 1])) == 1.0  # the only item of its class is no query
    assert recall_at_1(rows, np.arange(5)) is None
    assert recall_at_1(np.ones((4, 3)), np.array([0, 0, 1, 1])) == 0.0  # ties count against the query
    assert recall_at_1(np.zeros((4, 3)), np.array([0, 0, 1, 1])) is None
    assert recall_at_1(np.full((4, 3), np.nan), np.array([0, 0, 1, 1])) is None


def test_bad_artifacts_are_named(embedder, exported, images, tmp_path):
    (tmp_path / "text.txt").write_text("x")
    for path in (tmp_path / "text.txt", tmp_path):
        with pytest.raises(ValueError, match="SavedModel version folders"):
            export.verify(embedder, path, images)
    with pytest.raises(FileNotFoundError, match=r"`artifacts`: there is no '.*missing\.tflite'"):
        export.verify(embedder, tmp_path / "missing.tflite", images)
    (tmp_path / "broken.tflite").write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="could not be run by litert"):
        export.verify(embedder, tmp_path / "broken.tflite", images)
    shutil.copytree(exported, tmp_path / "7")
    (tmp_path / "7" / "variables" / "variables.index").unlink()
    with pytest.raises(ValueError, match=r"damaged \(variables/variables\.index is missing\)"):
        export.verify(embedder, tmp_path / "7", images)
    (tmp_path / "7" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="could not be run by tensorflow"):
        export.verify(embedder, tmp_path / "7", images)
    with pytest.raises(ValueError, match=r"did not end within timeout=0\.01"):
        export.verify(embedder, exported, images, timeout=0.01)
    with pytest.raises(ValueError, match="`images` must be"):
        export.verify(embedder, exported, images[:0])


@pytest.mark.parametrize(
    ("errors", "said"),
    [("one\ntwo\nlast word\n\n", "last word"), ("one\n", "one"), (" \n", "no message"), ("", "no message")],
)
def test_a_process_that_fails_is_quoted_with_its_last_line(errors, said, tmp_path, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 3, "", errors)

    monkeypatch.setattr(verification.subprocess, "run", run)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"x")
    with pytest.raises(ValueError) as caught:
        verification.run_job(path, np.zeros(1), signature="s", outputs=("embeddings",))
    assert str(caught.value) == f"{path} could not be run by litert (exit 3): {said}"


def test_a_file_that_others_wrote_has_no_facts(embedder, small_file, images, tmp_path):
    content = small_file.read_bytes()
    other = tmp_path / "other.tflite"
    other.write_bytes(content[: content.rindex(b"PK\x03\x04")])
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("labels.txt", "ant\nbee\n")
    (check,) = export.verify(embedder, other, images, latency=()).checks
    assert check.precision == "float32"


def test_a_name_in_brackets_is_shown():
    check = Check("shop[new]/1", "tensorflow", "float32", 1.0, 1.0, 1.0, None, {}, ())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(export.Verification((check,), 1, None).to_table())
    assert "shop[new]/1" in console.export_text()


def test_an_image_set_brings_its_labels(embedder, small_file, images, labels):
    from tf_detreg.datasets import ImageSet

    colours = ImageSet(labels, [str(c) for c in range(12)], images=images.astype(np.uint8))
    report = export.verify(embedder, small_file, colours, latency=(), most=40)
    assert report.images == 40
    assert report.recall_at_1 is not None
    assert report.to_table().row_count == 1
    assert report.limits() == "Limits: dynamic cosine min ≥ 0.999, R@1 ± 0.3 points."
    assert report.to_table().caption == report.limits()
    with pytest.raises(ValueError, match="one an image"):
        export.verify(embedder, small_file, images, labels[:3])

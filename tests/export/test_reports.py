"""What a verification says in numbers and words, and the facts that travel with a model: key by key."""

import datetime
import pathlib
import types

import keras
import numpy as np
import pytest

import tf_detreg
from tf_detreg import heads, retrieval
from tf_detreg.export import bundles, metadata, verification
from tf_detreg.export.inference import fingerprint
from tf_detreg.export.verification import Check, Limits, Verification

GOOD = Check("a/1", "tensorflow", "float32", 1.234, 0.99999949, 0.9999997, None, {1: 0.5}, (), Limits(0.9, 0.5))
BAD = Check("b.tflite", "litert", "int8", 0.5, 0.75, 0.875, -1.5, {1: 2.0, 32: 8.25}, ("x", "y"), Limits(0.8, 1.0))


def test_the_table_of_a_verification():
    (good,), (bad,) = (Verification((check,), 9, 0.5).rows() for check in (GOOD, BAD))
    assert good == {
        "artifact": "a/1",
        "run by": "tensorflow",
        "MB": "1.23",
        "cosine min": "0.999999",
        "cosine mean": "1.000000",
        "R@1 change (points)": "–",
        "ms at batch 1": "0.50",
        "within limits": "yes",
    }
    assert bad == {
        "artifact": "b.tflite",
        "run by": "litert",
        "MB": "0.50",
        "cosine min": "0.750000",
        "cosine mean": "0.875000",
        "R@1 change (points)": "-1.50",
        "ms at batch 1": "2.00",
        "ms at batch 32": "8.25",
        "within limits": "**no**: x; y",
    }


def test_what_a_verification_concludes():
    both = Verification((GOOD, BAD), 9, 0.5)
    assert not both.passed and both.reasons() == "b.tflite: x, y"
    assert (
        both.limits() == "Limits: float32 cosine min ≥ 0.9, R@1 ± 0.5 points; int8 cosine min ≥ 0.8, R@1 ± 1.0 points."
    )
    assert Verification((GOOD,), 9, None).passed and Verification((GOOD,), 9, None).reasons() == ""
    unknown = Check("c", "litert", "int8", 0.5, 0.75, 0.875, None, {}, ())
    assert Verification((unknown,), 9, None).limits() == ""


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    """Compare two rows of an artifact, which is a file of 2 kB, with what was wanted."""
    file = tmp_path / "a.tflite"
    file.write_bytes(bytes(2_000))

    def compare(got, change=None, limit=(0.9, 0.5), facts=None):
        monkeypatch.setattr(verification, "facts_of", lambda path: facts or {})
        precision = (facts or {}).get("quantization", "float32")
        wanted = np.eye(2, dtype=np.float32)
        answer = {"latency": {"1": 0.002, "8": 0.5}}
        return verification._compare(file, wanted, np.array(got), change, answer, {precision: Limits(*limit)}, "0" * 64)

    return compare


def test_an_artifact_is_compared_with_the_model_row_by_row(artifact):
    found = artifact([[1.0, 0.0], [0.6, 0.8]])
    assert (found.name, found.engine, found.precision, found.megabytes) == ("a.tflite", "litert", "float32", 0.002)
    assert found.cosine_min == pytest.approx(0.8) and found.cosine_mean == pytest.approx(0.9)
    assert found.latency_ms == {1: 2.0, 8: 500.0} and found.limits == Limits(0.9, 0.5)
    assert found.failures == ("cosine 0.800000 is below 0.9",) and found.recall_points is None
    # Lengths do not count, and a row without a direction is as wrong as can be.
    assert artifact([[3.0, 0.0], [0.0, 0.5]]).cosine_min == pytest.approx(1.0)
    for wrong in ([0.0, 0.0], [np.nan, 1.0]):
        assert artifact([[1.0, 0.0], wrong]).cosine_min == 0.0


def test_the_limits_themselves_are_allowed(artifact):
    exact = [[1.0, 0.0], [0.0, 1.0]]
    assert artifact(exact, limit=(1.0, 0.5)).passed
    for change, passed in ((0.5, True), (-0.5, True), (0.51, False), (-0.51, False)):
        assert artifact(exact, change).passed is passed
    assert artifact(exact, -0.51).failures == ("R@1 changes by -0.51 points, more than 0.5",)


def test_another_model_and_another_precision_are_seen_in_the_facts(artifact):
    exact = [[1.0, 0.0], [0.0, 1.0]]
    assert artifact(exact, facts={"fingerprint": "0" * 64, "quantization": "int8"}).precision == "int8"
    assert artifact(exact, facts={"fingerprint": "1" * 64}).failures == ("it was exported from another model",)


def test_default_limits():
    found = {precision: (limit.cosine, limit.recall_points) for precision, limit in verification.LIMITS.items()}
    assert found == {"float32": (0.99999, 0.1), "float16": (0.99999, 0.1), "dynamic": (0.999, 0.3), "int8": (0.99, 1.0)}


@pytest.fixture(scope="module")
def tiny():
    layers = [keras.Input((4, 6, 3)), keras.layers.Flatten(), heads.Linear(5)]
    return keras.Sequential(layers, name="tiny")


def test_the_facts_of_a_model(tiny):
    import tensorflow as tf

    facts = metadata.facts(tiny, (4, 6), more="x")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(facts.pop("created"))
    assert abs(age) < datetime.timedelta(minutes=5)
    assert facts == {
        "format": "tf_detreg export",
        "name": "tiny",
        "fingerprint": fingerprint(tiny),
        "image_size": [4, 6],
        "pixel_values": "0..255, RGB; scaling is inside the model",
        "resizing": "upright by EXIF, transparent on white, central crop to the aspect ratio, antialiased bilinear",
        "embedding_dim": 5,
        "similarity": "dot product of the unit vectors (cosine)",
        "parameters": tiny.count_params(),
        "versions": {"tf_detreg": tf_detreg.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        "more": "x",
    }
    files = metadata.extra_files({"ä": 1}, ["a", "é"])
    assert {name: content.decode() for name, content in files.items()} == {
        "metadata.json": '{\n  "ä": 1\n}',
        "labels.txt": "a\né\n",
    }
    assert list(metadata.extra_files({})) == ["metadata.json"]


def test_a_gallery_keeps_its_names_and_its_model_unless_others_are_given(tiny):
    rows = np.eye(5, dtype=np.float64)[:3]
    mark, other = fingerprint(tiny), "0123456789abcdef"
    index = retrieval.Index(rows, ids=["a", "b", "c"], fingerprint=mark)
    found, names = bundles.check_gallery(tiny, index, None, 3, None)
    assert names == ["a", "b", "c"] and found.dtype == np.float32
    np.testing.assert_array_equal(found, rows)
    assert bundles.check_gallery(tiny, index, [7, 8, 9], 1, None)[1] == ["7", "8", "9"]
    assert bundles.check_gallery(tiny, rows, None, 1, mark)[1] == ["0", "1", "2"]
    foreign = retrieval.Index(rows, fingerprint=other)
    assert bundles.check_gallery(tiny, foreign, None, 1, mark)[1] == ["0", "1", "2"]  # who calls knows better
    for gallery, asked in ((foreign, None), (index, other), (rows, other)):
        with pytest.raises(ValueError, match="another model"):
            bundles.check_gallery(tiny, gallery, None, 1, asked)
    for factor, fits in ((1.0009, True), (1.0012, False), (0.9991, True), (0.9988, False)):
        if fits:
            bundles.check_gallery(tiny, rows * factor, None, 1, None)
        else:
            with pytest.raises(ValueError, match=r"`gallery` must hold rows of length 1; received .* in row 0"):
                bundles.check_gallery(tiny, rows * factor, None, 1, None)


def test_a_process_gets_the_whole_job(tmp_path, monkeypatch):
    asked = {}

    def run(command, **options):
        file = pathlib.Path(command[-1])
        asked.update(job=verification.json.loads(file.read_text("utf-8")), command=command[:-1], **options)
        np.save(asked["job"]["outputs"]["scores"], np.arange(3.0))
        return types.SimpleNamespace(returncode=0, stdout='noise\n{"latency": {}}\n', stderr="")

    monkeypatch.setattr(verification.subprocess, "run", run)
    model = tmp_path / "a.tflite"
    found, answer = verification.run_job(
        model, np.eye(2), engine="litert", signature="s", outputs=("scores",), latency=(1, 4), repeats=7, timeout=9.0
    )
    job = asked["job"]
    assert {name: job[name] for name in ("engine", "path", "signature", "batch", "latency", "repeats")} == {
        "engine": "litert",
        "path": str(model),
        "signature": "s",
        "batch": 64,
        "latency": [1, 4],
        "repeats": 7,
    }
    assert asked["command"][1:] == ["-P", str(verification.RUNNER)] and asked["timeout"] == 9.0
    assert asked["env"]["PYTHONWARNINGS"] == "ignore" and asked["env"]["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert pathlib.Path(job["inputs"]).name == "inputs.npy" and not pathlib.Path(job["inputs"]).exists()
    np.testing.assert_array_equal(found["scores"], np.arange(3.0))
    assert answer == {"latency": {}}


def test_queries_near_a_gallery_are_unit_rows_and_the_same_each_time():
    gallery = np.eye(40, dtype=np.float32)
    near = bundles._near(gallery)
    np.testing.assert_allclose(np.linalg.norm(near, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(near, bundles._near(gallery))
    # Each lies near its own item, no two near the same one.
    assert near.shape == (40, 40) and near.dtype == np.float32
    assert sorted((near @ gallery.T).argmax(axis=1)) == list(range(40))
    assert 0.9 < (near @ gallery.T).max(axis=1).mean() < 0.99

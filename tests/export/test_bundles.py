"""Search inside the model: exact and ScaNN SavedModels, and a phone's offline search."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tests import needs
from tf_detreg import export, retrieval
from tf_detreg.export.lite import operators
from tf_detreg.export.verification import run_job

IDS = [f"item é {i}" for i in range(48)]


@pytest.fixture(scope="module")
def exact(embedder, expected, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval") / "search"
    return export.retrieval_saved_model(embedder, expected, folder, ids=IDS, k=5)


def nearest(queries, gallery, k):
    order = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(queries @ gallery.T, order, axis=1)


# By default the session searches in `test_deciding.py`, and TensorFlow in this process below.
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["session", "tensorflow"])
def test_exact_search_in_a_process_with_tensorflow_alone(exact, images, expected, encode, engine):
    contents = np.array([encode(image) for image in images[:6]] + [b"no image"])
    found, _ = run_job(
        exact, contents, engine=engine, signature="serve_bytes", outputs=("scores", "valid"),
    )  # fmt: skip
    _, scores = nearest(expected[:6], expected, 5)
    np.testing.assert_allclose(found["scores"][:6], scores, atol=1e-5)
    assert not found["scores"][6].any()
    assert found["valid"].tolist() == [True] * 6 + [False]


def test_all_signatures_answer_with_ids(exact, images, expected, encode):
    signatures = tf.saved_model.load(exact).signatures
    # No decision was given, so none is answered.
    assert set(signatures["serve_embeddings"].structured_outputs) == {"ids", "scores"}
    order, scores = nearest(expected[:4], expected, 5)
    wanted = np.array(IDS)[order]
    encoded = tf.constant([encode(image) for image in images[:4]])
    for answer in (
        signatures["serving_default"](images=images[:4]),
        signatures["serve_embeddings"](embeddings=3 * expected[:4]),
        signatures["serve_bytes"](image_bytes=encoded),
    ):
        got = np.vectorize(bytes.decode)(answer["ids"].numpy())
        assert (got[:, 0] == wanted[:, 0]).all()
        np.testing.assert_allclose(answer["scores"], scores, atol=1e-5)
    for empty in ({"images": tf.zeros((0, 32, 32, 3))}, {"image_bytes": tf.zeros((0,), tf.string)}):
        name = "serve_bytes" if "image_bytes" in empty else "serving_default"
        assert signatures[name](**empty)["ids"].shape == (0, 5)
    broken = signatures["serve_bytes"](image_bytes=tf.constant([b""]))
    assert set(broken["ids"].numpy().ravel()) == {b""}


SCANN = """
import json, sys
import numpy as np
import tensorflow as tf
import scann
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serve_embeddings"]
found = serve(embeddings=np.load(sys.argv[2]))
assert serve(embeddings=tf.zeros((0, 16)))["ids"].shape == (0, 10)
print(json.dumps([found["ids"].numpy().astype(str).tolist(), "keras" in sys.modules, "tf_detreg" in sys.modules]))
"""


def test_scann_in_a_process_with_tensorflow_and_scann(plain, tmp_path):
    needs.scann_operations()
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(3000, 16)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    path = export.retrieval_saved_model(plain, gallery, tmp_path / "s", k=10, engine="scann", warm_up=False)
    facts = json.loads((path / "assets.extra" / "metadata.json").read_text())
    assert facts["neighbor_recall"] >= 0.95
    assert (facts["engine"], facts["gallery_items"], facts["k"]) == ("scann", 3000, 10)
    np.save(tmp_path / "q.npy", gallery[:50])
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCANN, str(path), str(tmp_path / "q.npy")],
        capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    ids, _, ours = json.loads(done.stdout.splitlines()[-1])
    assert not ours
    order, _ = nearest(gallery[:50], gallery, 10)
    found = [len(set(map(int, got)) & set(want.tolist())) for got, want in zip(ids, order, strict=True)]
    assert np.mean(found) >= 9


def test_offline_search_with_litert_alone(embedder, images, expected, tmp_path):
    path = export.retrieval_litert(embedder, expected, tmp_path / "search.tflite", ids=IDS, k=5, input_dtype="uint8")
    found, answer = run_job(path, images.astype(np.uint8), signature="serving_default", outputs=("indices", "scores"))
    assert answer["modules"] == ["ai_edge_litert"]
    order, scores = nearest(expected, expected, 5)
    assert (found["indices"][:, 0] == order[:, 0]).mean() > 0.95
    np.testing.assert_allclose(found["scores"], scores, atol=0.02)
    assert not [name for name in operators(path.read_bytes()) if name.startswith("CUSTOM")]
    with zipfile.ZipFile(path) as archive:
        assert archive.read("ids.txt").decode().splitlines() == IDS


def test_the_mobile_gallery_is_int8(plain, tmp_path):
    gallery = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    path = export.retrieval_litert(plain, gallery, tmp_path / "m.tflite", ids=["x"] * 20_000, k=3)
    # One byte a number; a scale and a zero point an item (12 bytes), and its id (2).
    assert path.stat().st_size < 20_000 * (16 + 12 + 2) + 100_000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gallery": np.ones((48, 8))}, r"must be \(N, 16\)"),
        ({"gallery": np.zeros((48, 16))}, "length 1"),
        ({"gallery": np.full((48, 16), np.nan)}, "length 1"),
        ({"gallery_model": "0123456789abcdef"}, "another model"),
        ({"ids": IDS[:-1]}, "must name each of the 48 items"),
        ({"k": 49}, "a whole number from 1 to 48"),
        ({"k": 2.0}, "a whole number from 1 to 48"),
    ],
)
def test_a_gallery_that_does_not_fit_is_refused(embedder, expected, tmp_path, change, match):
    settings = {"gallery": expected, "ids": IDS, "k": 5, **change}
    with pytest.raises(ValueError, match=match):
        export.retrieval_litert(embedder, path=tmp_path / "m.tflite", **settings)
    with pytest.raises(ValueError, match=match):
        export.retrieval_saved_model(embedder, directory=tmp_path / "m", **settings)
    assert not list(tmp_path.iterdir())


def test_a_type_of_images_that_phones_do_not_send_is_refused(embedder, expected, tmp_path):
    with pytest.raises(ValueError, match="`input_dtype` must be"):
        export.retrieval_litert(embedder, expected, tmp_path / "m.tflite", input_dtype="int32")


def test_a_name_that_is_no_unicode_is_written_out(plain, expected, tmp_path):
    ids = [os.fsdecode(b"caf\xe9.jpg"), *IDS[1:]]
    path = export.retrieval_saved_model(plain, expected, tmp_path / "s", ids=ids, k=1, warm_up=False)
    found = tf.saved_model.load(path).signatures["serve_embeddings"](embeddings=expected[:1])
    assert found["ids"].numpy()[0, 0] == rb"caf\xe9.jpg"
    with zipfile.ZipFile(export.retrieval_litert(plain, expected, tmp_path / "m.tflite", ids=ids, k=1)) as archive:
        assert archive.read("ids.txt").startswith(rb"caf\xe9.jpg" + b"\n")


def test_an_index_brings_its_ids_and_its_model(plain, expected, tmp_path):
    index = retrieval.Index(expected, ids=IDS, fingerprint=export.fingerprint(plain))
    path = export.retrieval_litert(plain, index, tmp_path / "m.tflite")
    with zipfile.ZipFile(path) as archive:
        assert archive.read("ids.txt").decode().splitlines() == IDS
    foreign = retrieval.Index(expected, fingerprint="0123456789abcdef")
    with pytest.raises(ValueError, match="another model"):
        export.retrieval_litert(plain, foreign, tmp_path / "n.tflite")
    with pytest.raises(ValueError, match="'exact', 'scann'"):
        export.retrieval_saved_model(plain, index, tmp_path / "m", engine="faiss")

"""SavedModels: what is inside, and what processes that know nothing of this package make of them."""

import errno
import json
import shutil
import sys

import keras
import numpy as np
import PIL
import pytest
import tensorflow as tf

from tf_detreg import export, heads
from tf_detreg.export import metadata, publishing
from tf_detreg.export.savedmodel import embed_any
from tf_detreg.export.verification import run_job


@pytest.fixture(scope="module")
def encoded(images, encode):
    """PNG bytes of the images; rows 3 and 7 are broken."""
    contents = [encode(image) for image in images[:16]]
    contents[3], contents[7] = b"no image", contents[7][:50]
    return np.array(contents)


@pytest.fixture(scope="module")
def signatures(exported):
    """Those of the export, loaded once, which takes seconds."""
    return tf.saved_model.load(exported).signatures


@pytest.mark.parametrize("engine", ["tensorflow", "session"])
def test_a_process_with_tensorflow_alone_gives_the_same(exported, expected, encoded, engine):
    """Of bytes; images as arrays go through such a process in `test_verification.py`."""
    outputs, answer = run_job(
        exported, encoded, engine=engine, signature="serve_bytes", outputs=("embeddings", "valid")
    )
    assert answer["modules"] == ["tensorflow"]
    good = ~np.isin(np.arange(16), [3, 7])
    np.testing.assert_array_equal(outputs["valid"], good)
    np.testing.assert_allclose(outputs["embeddings"], expected[:16] * good[:, None], atol=1e-6)


def test_served_bytes_and_evaluation_agree_for_photos(signatures, embedder, encode):
    """A JPEG of another size through the served graph, against decode + model as `evaluate` does it."""
    from tf_detreg.images import decode

    rng = np.random.default_rng(5)
    photos = [
        encode(np.kron(rng.integers(0, 256, (9, 7 + i, 3)), np.ones((17 + 3 * i, 13, 1))), "JPEG") for i in range(5)
    ]
    served = signatures["serve_bytes"](image_bytes=tf.constant(photos))
    wanted = embedder(np.stack([decode(photo, (32, 32)) for photo in photos]).astype(np.float32))
    # The graph rounds resized pixels as Pillow 13 does; older ones differ by one of 255 levels in some of them.
    close = 1e-5 if int(PIL.__version__.split(".")[0]) >= 13 else 2e-3
    np.testing.assert_allclose(served["embeddings"], wanted, atol=close)


def test_only_inference_variables_are_stored(exported, embedder):
    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    weights = [shape for name, shape in stored if name.endswith("VARIABLE_VALUE")]
    assert sum(int(np.prod(shape)) for shape in weights) == embedder.count_params()


def test_a_dueling_model_leaves_its_rival_behind(images, tmp_path):
    keras.utils.set_random_seed(0)
    head = heads.Dueling(heads.RealNVP(8, depth=2, hidden=8, penalty=0.1))
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), head])
    with pytest.raises(ValueError, match="only training needs"):
        export.saved_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_signatures_take_any_batch_and_refuse_a_wrong_dtype(signatures, images):
    default, of_bytes = signatures["serving_default"], signatures["serve_bytes"]
    for count in (0, 1, 1000):
        rows = np.resize(images, (count, *images.shape[1:]))
        assert default(images=tf.constant(rows))["embeddings"].shape == (count, 16)
    assert of_bytes(image_bytes=tf.constant([], tf.string))["embeddings"].shape == (0, 16)
    with pytest.raises(Exception, match="float"):
        default(images=tf.constant(images[:1], tf.int32))


def test_facts_labels_and_fingerprint(exported, embedder):
    facts = json.loads((exported / "assets.extra" / "metadata.json").read_text())
    assert facts["image_size"] == [32, 32]
    assert facts["embedding_dim"] == 16
    assert facts["signatures"] == ["serve_bytes", "serving_default"]
    assert (exported / "assets.extra" / "labels.txt").read_text() == "a\nb\n"
    from tf_detreg.export.inference import fingerprint

    assert facts["fingerprint"] == fingerprint(embedder)
    other = keras.models.clone_model(embedder)
    assert fingerprint(other) != facts["fingerprint"]


def test_warm_up_requests_replay(exported):
    """What TensorFlow Serving does before it takes traffic: parse each record, run it through the session loader."""
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    file = exported / "assets.extra" / "tf_serving_warmup_requests"
    seen = []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(exported))
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            signature = meta.signature_def[request.model_spec.signature_name]
            feed = {signature.inputs[key].name: tf.make_ndarray(value) for key, value in request.inputs.items()}
            out = session.run({key: info.name for key, info in signature.outputs.items()}, feed)
            seen.append((request.model_spec.signature_name, len(out["embeddings"])))
            if "valid" in out:
                assert out["valid"].all()
    assert sorted(seen) == sorted((name, n) for name in ("serving_default", "serve_bytes") for n in (1, 8, 32))


def test_without_the_messages_of_tensorflow_serving(plain, tmp_path, monkeypatch):
    """The core package exports without them; asked for, their absence is an error that names the remedy."""
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
    with pytest.raises(ImportError, match="tensorflow-serving-api"):
        metadata.prediction_log("m", "serving_default", {})
    with pytest.raises(ImportError, match="tensorflow-serving-api"):
        export.saved_model(plain, tmp_path, warm_up=True)
    monkeypatch.setattr(metadata.importlib.util, "find_spec", lambda name: None)
    path = export.saved_model(plain, tmp_path)
    assert sorted(file.name for file in (path / "assets.extra").iterdir()) == ["metadata.json"]


def test_features_signature(embedder, images, expected, tmp_path):
    path = export.saved_model(embedder, tmp_path, features=True, warm_up=False)
    features = keras.Model(embedder.inputs, embedder.layers[-2].output)(images)
    got = tf.saved_model.load(path).signatures["serve_features"](features=features)["embeddings"]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_versions_count_up_and_are_never_overwritten(plain, tmp_path):
    first = export.saved_model(plain, tmp_path / "m", warm_up=False)
    second = export.saved_model(plain, tmp_path / "m", warm_up=False)
    assert (first.name, second.name) == ("1", "2")
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == ["1", "2"]
    with pytest.raises(ValueError, match="next free one is 3"):
        export.saved_model(plain, tmp_path / "m", version=2)
    with pytest.raises(ValueError, match="1 or more"):
        export.saved_model(plain, tmp_path / "m", version=0)


def test_a_failed_check_keeps_the_version_back(plain, tmp_path):
    def refuse(path):
        assert (path / "saved_model.pb").is_file()
        raise ValueError("below the limits")

    with pytest.raises(ValueError, match="below the limits"):
        export.saved_model(plain, tmp_path, warm_up=False, check=refuse)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_noticed_before_writing(plain, tmp_path, monkeypatch):
    full = shutil._ntuple_diskusage(10**9, 10**9, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(OSError, match="Free some space"):
        export.saved_model(plain, tmp_path, warm_up=False)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
def test_a_disk_that_fills_up_while_writing_leaves_the_old_version(tmp_path):
    """The system refuses to let files grow, as a full disk does, from the second export on."""
    import resource

    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(20)])
    export.saved_model(model, tmp_path / "m", warm_up=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"No version was published .*version 1 stays as it was"):
            export.saved_model(model, tmp_path / "m", warm_up=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in (tmp_path / "m").iterdir()] == ["1"]
    assert publishing.check_version(tmp_path / "m" / "1")


def test_an_unwritable_place_is_named(plain, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file") as caught:
        export.saved_model(plain, tmp_path / "file" / "m", warm_up=False)
    assert caught.value.__cause__ is not None or caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("a string", "keras.Model"),
        (keras.Sequential([keras.layers.Dense(3)]), "must be built"),
        (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "must map images"),
        (
            keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]),
            "`image_size` must be given",
        ),
    ],
)
def test_what_is_no_embedder_is_refused(model, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        export.saved_model(model, tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_number_of_images_is_embedded_none_included(count):
    """A kernel that refuses an empty batch is given one black image, whose row is dropped."""
    given = []

    def embedder(images, training):
        assert training is False
        given.append(images.numpy())
        return tf.cast(tf.reduce_mean(images, (1, 2)), tf.float16)

    images = np.random.default_rng(0).integers(1, 9, (count, 2, 4, 3)).astype(np.float32)
    found = embed_any(embedder, tf.constant(images))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, images.mean((1, 2)).reshape(count, 3), rtol=1e-3)
    np.testing.assert_array_equal(given[0], images if count else np.zeros((1, 2, 4, 3)))


@pytest.mark.parametrize(
    ("asked", "installed", "wanted", "told"),
    [
        (None, None, False, True),
        (None, "there", True, False),
        (True, None, True, False),
        (False, "there", False, False),
    ],
)
def test_warm_up_requests_are_written_if_they_can_be(asked, installed, wanted, told, monkeypatch, caplog):
    monkeypatch.setattr(metadata.importlib.util, "find_spec", lambda name: installed)
    with caplog.at_level("INFO", metadata.__name__):
        assert metadata.warm_up_wanted(asked) is wanted
    assert ("No warm-up requests were written" in caplog.text) is told

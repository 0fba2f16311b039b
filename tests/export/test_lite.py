"""LiteRT files: what is inside, and what a process with LiteRT alone makes of them."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import export, heads
from tf_detreg.export import lite
from tf_detreg.export.joining import join
from tf_detreg.export.lite import operators
from tf_detreg.export.verification import run_artifact

LEAST_COSINE = {None: 0.99999, "float16": 0.99999, "dynamic": 0.999, "int8": 0.99}


@pytest.fixture(scope="module")
def files(embedder, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite")
    return {
        kind: export.litert(embedder, folder / f"{kind}.tflite", kind, calibration=images, class_names=["ant", "bee"])
        for kind in LEAST_COSINE
    }


@pytest.mark.parametrize("kind", LEAST_COSINE)
def test_a_process_with_litert_alone_gives_the_same(files, images, expected, kind):
    got, answer = run_artifact(files[kind], images)
    assert answer["modules"] == ["ai_edge_litert"]
    assert (got * expected).sum(axis=1).min() >= LEAST_COSINE[kind]
    assert not [name for name in operators(files[kind].read_bytes()) if name.startswith("CUSTOM")]


def test_facts_and_labels_are_inside_the_file(files):
    with zipfile.ZipFile(files["int8"]) as archive:
        facts = json.loads(archive.read("metadata.json"))
        assert archive.read("labels.txt") == b"ant\nbee\n"
    assert facts["quantization"] == "int8"
    assert facts["image_size"] == [32, 32]


def test_uint8_images(embedder, images, expected, tmp_path):
    """Of an int8 file see `test_integers.py`."""
    from ai_edge_litert.interpreter import Interpreter

    path = export.litert(embedder, tmp_path / "m.tflite", input_dtype="uint8")
    run = Interpreter(str(path)).get_signature_runner("serving_default")
    got = run(images=images[:1].astype(np.uint8))["embeddings"]
    assert (got * expected[:1]).sum() >= LEAST_COSINE[None]


def test_a_resizable_batch(embedder, images, expected, tmp_path):
    path = export.litert(embedder, tmp_path / "m.tflite", batch_size=None)
    got, _ = run_artifact(path, images[:7])
    np.testing.assert_allclose(got, expected[:7], atol=1e-5)


def test_int8_with_a_larger_fixed_batch(embedder, images, expected, tmp_path):
    path = export.litert(embedder, tmp_path / "m.tflite", "int8", calibration=images[:10], batch_size=4)
    got, _ = run_artifact(path, images[:8])
    assert (got * expected[:8]).sum(axis=1).min() > LEAST_COSINE["int8"]


@pytest.mark.parametrize(
    "head",
    [
        heads.Linear(4),
        heads.NICE(4, depth=2, hidden=4),
        heads.Glow(4, depth=2, hidden=4),
        heads.FFJORD(4, hidden=4),
        heads.FFJORD(4, hidden=4, solver="dormand_prince"),
    ],
    ids=["linear", "nice", "glow", "ffjord", "ffjord adaptive"],
)
def test_every_head_runs_on_built_in_ops(head, images, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), head])
    run = Interpreter(str(export.litert(model, tmp_path / "m.tflite"))).get_signature_runner("serving_default")
    np.testing.assert_allclose(run(images=images[:1])["embeddings"], model(images[:1]), atol=1e-5)


class Determinant(keras.layers.Layer):
    """An op that LiteRT does not have built in."""

    def call(self, features):
        return features * tf.linalg.det(features[:, :3, None] * tf.eye(3))[:, None]


def test_a_model_that_needs_more_than_built_in_ops_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), Determinant()])
    with pytest.raises(ValueError, match=r"built-in ops.*MatrixDeterminant"):
        export.litert(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"quantize": "int4"}, "`quantize` must be one of"),
        ({"quantize": "int8"}, "`calibration` must be some hundred"),
        ({"quantize": "int8", "calibration": np.zeros((4, 5, 5, 3))}, r"`calibration` must be images \(N, 32, 32, 3\)"),
        ({"input_dtype": "int8"}, "`input_dtype` must be"),
        ({"image_size": 64}, "be the size of the model"),
        ({"labels": ["two\nlines"]}, "line breaks"),
    ],
)
def test_bad_settings(embedder, tmp_path, settings, match):
    with pytest.raises(ValueError, match=match):
        export.litert(embedder, tmp_path / "m.tflite", **settings)
    assert not list(tmp_path.iterdir())


def test_a_failed_check_leaves_the_old_file(embedder, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"the old one")

    def refuse(candidate):
        raise ValueError(f"below the limits: {candidate.stat().st_size} bytes")

    with pytest.raises(ValueError, match="below the limits"):
        export.litert(embedder, path, check=refuse)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_int8_keeps_the_flow_in_float(files, embedder, images, expected):
    """Convolutions run in int8: to round these costs little. The head runs in float; weights are int8 in both."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(files["int8"]), experimental_op_resolver_type=_reference())
    interpreter.allocate_tensors()
    kinds = {}
    for operation in interpreter._get_ops_details():
        details = interpreter._get_tensor_details(operation["outputs"][0], 0)
        kinds.setdefault(operation["op_name"], set()).add(np.dtype(details["dtype"]).name)
    assert kinds["CONV_2D"] == {"int8"}
    assert kinds["EXP"] == kinds["FULLY_CONNECTED"] == {"float32"}
    assert (run_artifact(files["int8"], images)[0] * expected).sum(axis=1).min() > 0.995


def _reference():
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def test_models_that_do_not_fit_are_not_joined(files):
    model = files[None].read_bytes()
    with pytest.raises(ValueError, match="`second` must take what `first` gives"):
        join(model, model)


def test_one_calibration_image_is_enough_and_none_is_not(images):
    lite._check("int8", images[:1], (32, 32))
    for wrong in (None, images[:0]):
        with pytest.raises(ValueError, match="`calibration` must be some hundred typical images"):
            lite._check("int8", wrong, (32, 32))
    with pytest.raises(ValueError, match=r"`calibration` must be images \(N, 16, 32, 3\)"):
        lite._check("int8", images, (16, 32))
    for name in ("dynamic", None):
        lite._check(name, None, (32, 32))
    with pytest.raises(ValueError, match="`quantize` must be"):
        lite._check("int4", None, (32, 32))


def test_the_last_calibration_batch_is_filled_up_with_the_first_images():
    batches = [batch.tolist() for (batch,) in lite._samples(np.arange(5), 2)]
    assert batches == [[0, 1], [2, 3], [4, 0]]
    assert [batch.tolist() for (batch,) in lite._samples(np.arange(2), 5)] == [[0, 1, 0, 1, 0]]

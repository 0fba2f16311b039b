"""float16 files: what is rounded in them, what is not, and that nothing else changes."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tf_detreg import export, heads
from tf_detreg.export.flatfiles import code_of, packed, unpacked
from tf_detreg.export.halving import halve
from tf_detreg.export.lite import operators
from tf_detreg.export.verification import run_artifact

FLOAT32, FLOAT16 = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16


def constants(model: bytes) -> list[tuple[int, int]]:
    """(type, elements) of each constant tensor that holds floats."""
    content = unpacked(model)
    tensors = itertools.chain.from_iterable(graph.tensors for graph in content.subgraphs)
    found = [(tensor.type, content.buffers[tensor.buffer].data) for tensor in tensors]
    return [
        (kind, len(data) // (2 if kind == FLOAT16 else 4))
        for kind, data in found
        if kind in (FLOAT32, FLOAT16) and data is not None
    ]


def converted(function, *shapes) -> bytes:
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


def run(model: bytes, *inputs) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    for details, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def scaled():
    """A depthwise network with what training does to EfficientNet-Lite's first layers.

    Its channels vary little about a large mean. Batch norm takes the mean off and multiplies the rest up, and with it
    what rounding did to the kernel.
    """
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(32, 3, 2, use_bias=False),
            keras.layers.DepthwiseConv2D(3, use_bias=False),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Conv2D(64, 1, activation="relu6"),
            keras.layers.Conv2D(256, 3, 2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.BatchNormalization(name="last"),
            heads.Linear(64),
        ]
    )
    images = np.random.default_rng(0).uniform(200, 220, (24, 32, 32, 3)).astype(np.float32)
    for name in ("norm", "last"):
        layer = model.get_layer(name)
        seen = keras.Model(model.inputs, layer.input).predict(images, verbose=0).reshape(-1, layer.input.shape[-1])
        layer.moving_mean.assign(seen.mean(axis=0))
        layer.moving_variance.assign(seen.var(axis=0))
    return model, images


def test_a_badly_scaled_depthwise_kernel_does_no_harm(scaled, tmp_path):
    model, images = scaled
    exact = export.litert(model, tmp_path / "float32.tflite")
    path = export.litert(model, tmp_path / "float16.tflite", "float16")
    expected = np.asarray(model(images))
    got, answer = run_artifact(path, images)
    assert answer["modules"] == ["ai_edge_litert"]
    assert (got * expected).sum(axis=1).min() >= 0.99999
    # What rounding every weight would have made of it.
    rounded, _ = run_artifact(_written(tmp_path / "all.tflite", halve(exact.read_bytes(), 1)), images)
    assert (rounded * expected).sum(axis=1).min() < 0.99999
    assert path.stat().st_size < 0.52 * exact.stat().st_size
    assert not [name for name in operators(path.read_bytes()) if name.startswith("CUSTOM")]


def _written(path, model):
    path.write_bytes(model)
    return path


def test_small_constants_stay_and_large_ones_are_halved():
    large, small = weights(64, 128), weights(128)
    model = converted(lambda x: tf.tanh(x @ large) * small, (1, 64))
    halved = halve(model)
    assert sorted(constants(model)) == [(FLOAT32, 128), (FLOAT32, 8192)]
    assert sorted(constants(halved)) == [(FLOAT32, 128), (FLOAT16, 8192)]
    assert sorted(constants(halve(model, 1))) == [(FLOAT16, 128), (FLOAT16, 8192)]
    assert 15_000 < len(model) - len(halved) < 16_384
    row = weights(1, 64, seed=1)
    rounded = large.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(run(halved, row)[0], np.tanh(row @ rounded) * small, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1e6, 1e-8, np.inf], ids=["overflow", "underflow", "infinity"])
def test_what_float16_cannot_hold_stays(factor):
    numbers = weights(100, 100) * np.float32(factor)
    model = converted(lambda x: x * numbers, (100, 100))
    assert constants(halve(model)) == constants(model) == [(FLOAT32, 10_000)]


def test_tensors_that_share_a_buffer_share_its_float16():
    model = _sharing()
    halved = halve(model)
    content = unpacked(halved)
    stored = [tensor.buffer for tensor in content.subgraphs[0].tensors if tensor.type == FLOAT16]
    assert len(stored) == 2
    assert len(set(stored)) == 1
    assert len(halved) < len(model) - 15_000
    row = weights(1, 64, seed=2)
    for exact, rounded in zip(run(model, row), run(halved, row), strict=True):
        np.testing.assert_allclose(rounded, exact, rtol=1e-2, atol=1e-2)


def test_a_buffer_with_other_uses_is_left_alone():
    content = unpacked(_sharing())
    _large(content)[1].type = schema.TensorType.INT32
    assert not [kind for kind, _ in constants(halve(packed(content))) if kind == FLOAT16]
    content = unpacked(_sharing())
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"mine", _large(content)[0].buffer
    content.metadata.append(entry)
    assert not [kind for kind, _ in constants(halve(packed(content))) if kind == FLOAT16]


def _sharing() -> bytes:
    """`x @ w` and `tanh(x @ w')`, where `w` and `w'` are two tensors on one buffer."""
    one, other = weights(64, 128), weights(64, 128, seed=1)
    content = unpacked(converted(lambda x: (x @ one, tf.tanh(x @ other)), (1, 64)))
    first, second = _large(content)
    second.buffer = first.buffer
    return packed(content)


def _large(content) -> list:
    """The tensors that hold a `(64, 128)` matrix."""
    tensors = content.subgraphs[0].tensors
    return [tensor for tensor in tensors if len(tensor.shape) == 2 and np.prod(tensor.shape) == 64 * 128]


def test_the_loop_of_ffjord(images, tmp_path):
    """The adaptive solver is a loop, whose condition and body are subgraphs."""
    head = heads.FFJORD(4, hidden=8, solver="dormand_prince")
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), head])
    exact = export.litert(model, tmp_path / "float32.tflite").read_bytes()
    halved = halve(exact, 1)
    assert len(unpacked(halved).subgraphs) > 1
    assert not [name for name in operators(halved) if name.startswith("CUSTOM")]
    inner = itertools.chain.from_iterable(graph.tensors for graph in unpacked(halved).subgraphs[1:])
    assert FLOAT16 in {tensor.type for tensor in inner}
    for image in images[:3]:
        assert (run(halved, image[None])[0] * run(exact, image[None])[0]).sum() > 0.9999


def test_weights_lie_where_the_format_wants_them():
    """A reader may map the file into memory and hand out pointers: the schema says `force_align: 16`."""
    model = halve(converted(lambda x: x @ weights(64, 128) + weights(128), (1, 64)))
    read = schema.Model.GetRootAsModel(model, 0)
    buffers = [read.Buffers(index) for index in range(read.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(starts) >= 2
    assert {start % 16 for start in starts} == {0}


def test_other_bytes_are_refused():
    with pytest.raises(ValueError, match=r"bytes of a \.tflite file"):
        halve(b"no model at all")


def test_an_operator_has_a_code_for_each_version():
    content = schema.ModelT()
    content.operatorCodes = []
    asked = [("CAST", 1), ("DEQUANTIZE", 1), ("DEQUANTIZE", 3), ("CAST", 1), ("DEQUANTIZE", 3), ("GELU", 2)]
    assert [code_of(content, name, version) for name, version in asked] == [0, 1, 2, 0, 2, 3]
    found = [(code.builtinCode, code.version, code.deprecatedBuiltinCode) for code in content.operatorCodes]
    kinds = schema.BuiltinOperator
    assert found[:3] == [(kinds.CAST, 1, kinds.CAST), (kinds.DEQUANTIZE, 1, kinds.DEQUANTIZE), (kinds.DEQUANTIZE, 3, 6)]
    assert found[3] == (kinds.GELU, 2, 127) and kinds.GELU > 127

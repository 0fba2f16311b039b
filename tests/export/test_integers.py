"""int8 files: which operators stay in float, and that the rest does not."""

import itertools

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tf_detreg import export, heads
from tf_detreg.export import integers
from tf_detreg.export.verification import LIMITS, run_artifact


@pytest.fixture(scope="module")
def scaled():
    """A deep network whose first depthwise kernel batch norm has multiplied up, as in EfficientNet-Lite.

    The channels vary little about a large mean; rounded to 8 bits, what varies is lost.
    """
    keras.utils.set_random_seed(0)
    blocks = [
        [keras.layers.Conv2D(32, 1, use_bias=False), keras.layers.BatchNormalization(), keras.layers.ReLU(6.0)]
        for _ in range(16)
    ]
    layers = [
        keras.layers.Rescaling(1 / 127.5, -1),
        keras.layers.Conv2D(16, 3, 2, use_bias=False),
        keras.layers.DepthwiseConv2D(3, use_bias=False),
        keras.layers.BatchNormalization(),
        *itertools.chain.from_iterable(blocks),
        keras.layers.GlobalAveragePooling2D(),
    ]
    rng = np.random.default_rng(0)
    images = rng.uniform(190, 210, (40, 1, 1, 3)) + rng.uniform(-5, 5, (40, 16, 16, 3))
    images = np.round(images).astype(np.float32)
    _normalize(layers, images)
    return keras.Sequential([keras.Input((16, 16, 3)), *layers, heads.Linear(16)]), images


def _normalize(layers, images):
    """Gives each batch norm the mean and variance of what it sees."""
    seen = images
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.build(seen.shape)
            axes = tuple(range(len(seen.shape) - 1))
            layer.moving_mean.assign(np.mean(seen, axis=axes))
            layer.moving_variance.assign(np.var(seen, axis=axes))
        seen = layer(seen)


def least_cosine(path, model, images):
    return (run_artifact(path, images)[0] * np.asarray(model(images))).sum(axis=1).min()


def activations(path) -> list[tuple[str, str]]:
    """(operator, type of its output), in the order they run in."""
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return [
        (operator["op_name"], np.dtype(interpreter._get_tensor_details(operator["outputs"][0], 0)["dtype"]).name)
        for operator in interpreter._get_ops_details()
    ]


def test_the_first_operators_stay_in_float_where_rounding_them_costs_too_much(scaled, tmp_path, monkeypatch):
    model, images = scaled
    known, new = images[:24], images[24:]
    path = export.litert(model, tmp_path / "chosen.tflite", "int8", calibration=known)
    assert least_cosine(path, model, new) >= LIMITS["int8"].cosine
    found = activations(path)
    assert ("DEPTHWISE_CONV_2D", "float32") in found
    assert found.count(("CONV_2D", "int8")) >= 8
    monkeypatch.setattr(integers, "FLOAT_OPERATORS", (0,))
    path = export.litert(model, tmp_path / "all.tflite", "int8", calibration=known)
    assert ("DEPTHWISE_CONV_2D", "int8") in activations(path)
    assert least_cosine(path, model, new) < LIMITS["int8"].cosine


def test_uint8_images_are_pixels_whatever_was_calibrated_on(embedder, images, tmp_path):
    dark = np.round(images / 2)
    path = export.litert(embedder, tmp_path / "m.tflite", "int8", calibration=dark, input_dtype="uint8")
    assert least_cosine(path, embedder, dark) >= LIMITS["int8"].cosine


def test_uint8_images_with_float_operators_first(scaled, tmp_path):
    model, images = scaled
    path = export.litert(model, tmp_path / "m.tflite", "int8", calibration=images, input_dtype="uint8", batch_size=4)
    assert ("DEPTHWISE_CONV_2D", "float32") in activations(path)
    assert least_cosine(path, model, images) >= LIMITS["int8"].cosine


def test_where_nothing_is_close_enough_the_closest_is_taken(scaled, tmp_path, monkeypatch):
    model, images = scaled
    least, tried = integers._least_cosine, []

    def noted(*given):
        tried.append(least(*given))
        return tried[-1]

    monkeypatch.setattr(integers, "CLOSE_ENOUGH", 1.1)
    monkeypatch.setattr(integers, "_least_cosine", noted)
    path = export.litert(model, tmp_path / "m.tflite", "int8", calibration=images)
    assert len(tried) > 1
    assert least_cosine(path, model, images) == pytest.approx(max(tried), abs=1e-4)


def test_black_calibration_images_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="all black or all alike"):
        export.litert(model, tmp_path / "m.tflite", "int8", calibration=np.zeros((2, 8, 8, 3)))

"""int8 models that keep as many of their first operators in float as accuracy needs, and no more."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_detreg import extras
from tf_detreg._compat import mlir_quantize
from tf_detreg.export.flatfiles import packed, unpacked

# How many first operators are tried in float; never more than a quarter of all.
FLOAT_OPERATORS = (0, 4, 8, 12, 16)
# The check on images that were not calibrated on asks for 0.99 (`export.LIMITS`); this leaves a margin.
CLOSE_ENOUGH = 0.993


def quantize(
    calibrated: bytes,
    finish: Callable[[bytes], bytes],
    batches: Sequence[np.ndarray],
    expected: np.ndarray,
    input_dtype: str = "float32",
) -> bytes:
    """Return the int8 model with the fewest first operators in float at which it is close to the float model.

    Rounded activations lose most in the first layers, where batch norm has multiplied large scales into the kernels of
    depthwise convolutions; there is little work and hardly a weight in them. So 0, 4, 8, 12 and 16 operators at the
    start, at most a quarter of all, are kept in float in turn, until the least cosine of a calibration image's
    embedding to the float model's is 0.993. Where none reaches it, the closest is taken.

    Args:
        calibrated: A float model with the ranges of its activations, as the converter measures them.
        finish: Makes the whole model of the quantized one, with the output `embeddings`.
        batches: The calibration images, as the model takes them.
        expected: `(N, dim)`, the float model's embeddings of them.
        input_dtype: `"float32"` or `"uint8"`.

    Returns:
        The whole model.

    Raises:
        ValueError: If it cannot run, as when the calibration images are all black.

    Reference:
        https://ai.google.dev/edge/litert/models/quantization_debugger ("selective quantization")
    """
    calibrated = _of_pixels(calibrated)
    names = _operators(calibrated)
    best, closest = b"", -np.inf
    for count in FLOAT_OPERATORS:
        if count > len(names) // 4:
            break
        model = finish(_quantized(calibrated, names[:count], input_dtype))
        least = _least_cosine(model, batches, expected)
        if not best or least > closest:
            best, closest = model, least
        if closest >= CLOSE_ENOUGH:
            break
    return best


def _of_pixels(calibrated: bytes) -> bytes:
    """Set the input's range to 0..255: a step of a uint8 input is then a pixel's, whatever was calibrated on."""
    content = unpacked(calibrated)
    graph = content.subgraphs[0]
    images = graph.tensors[int(graph.inputs[0])]
    images.quantization.min, images.quantization.max = [0.0], [255.0]
    return packed(content)


def _operators(model: bytes) -> list[str]:
    """Return the converter's names of a model's operators, in the order they run in: those of their first outputs."""
    graph = unpacked(model).subgraphs[0]
    return [graph.tensors[int(operator.outputs[0])].name.decode() for operator in graph.operators]


def _quantized(calibrated: bytes, in_float: Sequence[str], input_dtype: str) -> bytes:
    # What `tf.lite.experimental.QuantizationDebugger` calls, without its deprecated interpreter.
    return mlir_quantize(calibrated, input_data_type=tf.dtypes.as_dtype(input_dtype), denylisted_nodes=set(in_float))


def _least_cosine(model: bytes, batches: Sequence[np.ndarray], expected: np.ndarray) -> float:
    with extras.needed("A .tflite file"):
        from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=model, num_threads=1).get_signature_runner("serving_default")
    dtype = run.get_input_details()["images"]["dtype"]
    try:
        got = np.concatenate([run(images=np.ascontiguousarray(batch, dtype))["embeddings"] for batch in batches])
    except RuntimeError as error:
        raise ValueError(
            "The int8 model cannot run. Are the calibration images all black or all alike? Activations without a range "
            f"cannot be rounded to 8 bits. LiteRT said: {error}"
        ) from error
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    return float(np.nan_to_num((got * expected).sum(axis=1) / np.maximum(lengths, 1e-12), nan=-1.0).min())

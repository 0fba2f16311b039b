"""LiteRT models (`.tflite`) for phones: built-in ops only, with facts and labels inside the file."""

import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import checks, deprecated, extras
from tf_detreg._compat import calibrate_only
from tf_detreg.export import integers, metadata, publishing
from tf_detreg.export.halving import halve
from tf_detreg.export.inference import image_size_of, inference_model
from tf_detreg.export.joining import join
from tf_detreg.export.savedmodel import embed, save_options, variables_read
from tf_detreg.files import replacing
from tf_detreg.heads.base import Head

QUANTIZATIONS = (None, "float16", "dynamic", "int8")


@deprecated.renamed_arguments(labels="class_names")
def litert(
    embedder: keras.Model,
    path: str | os.PathLike[str],
    quantize: str | None = None,
    calibration: np.ndarray | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    input_dtype: str = "float32",
    batch_size: int | None = 1,
    class_names: Sequence[str] | None = None,
    about: dict[str, Any] | None = None,
    check: Callable[[pathlib.Path], object] | None = None,
) -> pathlib.Path:
    """Write an embedder as a `.tflite` file: images `(B, H, W, 3)`, 0..255, to unit vectors `(B, dim)`.

    The file runs on LiteRT's built-in ops alone (this is checked), in its signature `serving_default` with the input
    `images` and the output `embeddings`. Its facts and labels are stored in the file as in TFLite's own metadata
    format: `metadata.json` and `labels.txt` in a zip archive behind the model, which any unzip program reads.

    Args:
        embedder: The plain inference model.
        path: The `.tflite` file.
        quantize: None (float32, default), `"float16"` (large weights halved, hardly a loss), `"dynamic"` (int8
            weights, float activations) or `"int8"` (int8 weights, and int8 activations in the backbone but for
            its first layers, where the calibration images show that they need float; the head keeps float activations).
        calibration: For `"int8"`: some hundred typical images `(N, H, W, 3)`, 0..255, on which the ranges of the
            activations are measured.
        image_size: Side or (height, width). Default: the model's input size.
        input_dtype: `"float32"` (default) or `"uint8"`, which spares a phone the conversion.
        batch_size: Fixed batch size, 1 by default; None lets the app resize the input.
        class_names: Class names to store.
        about: More entries for `metadata.json`.
        check: Called with the finished file before it is published; an exception from it keeps the file back.

    Returns:
        The path of the file.

    Raises:
        ValueError: For unknown settings, missing calibration images, or a model that needs more than the built-in ops.
        OSError: If the disk is full or not writable; a file that was there before stays as it was.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
        >>> file = litert(model, os.path.join(tempfile.mkdtemp(), "model.tflite"), quantize="dynamic")
        >>> sorted(zipfile.ZipFile(file).namelist())
        ['metadata.json']

    Reference:
        https://ai.google.dev/edge/litert/models/metadata
    """
    check_input_dtype(input_dtype)
    embedder = inference_model(embedder)
    size = image_size_of(embedder, image_size)
    _check(quantize, calibration, size)
    if quantize == "int8" and calibration is not None:
        model = _int8(embedder, (batch_size, *size, 3), calibration, input_dtype)
    else:

        @tf.function(input_signature=[tf.TensorSpec((batch_size, *size, 3), input_dtype, name="images")])
        def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"embeddings": embed(embedder, tf.cast(images, tf.float32))}

        # Halved here: the converter's own float16 also rounds the few small weights on which everything depends.
        halved = quantize == "float16"
        model = convert(serving_default, embedder, None if halved else quantize)
        model = halve(model) if halved else model
    facts = metadata.facts(
        embedder,
        size,
        quantization=quantize or "float32",
        input_dtype=input_dtype,
        batch_size=batch_size,
        **(about or {}),
    )
    return write(path, model, metadata.extra_files(facts, class_names), check)


def _int8(embedder: keras.Model, shape: tuple[Any, ...], calibration: np.ndarray, input_dtype: str) -> bytes:
    """Return the backbone with int8 activations, the head with int8 weights and float activations.

    A flow multiplies by `exp(s)` layer after layer; with activations rounded to 8 bits after each, a trained RealNVP
    of 12 layers lost 7 points of R@1. The projection is cheap in float too, and rounding its output was most of what
    a small CNN lost.
    """
    head = embedder.layers[-1]
    rest = None
    backbone = embedder
    if isinstance(head, Head):
        backbone = keras.Model(embedder.inputs, head.input)
        features_spec = tf.TensorSpec((shape[0], *head.input.shape[1:]), tf.float32, name="features")

        @tf.function(input_signature=[features_spec])
        def embeddings(features: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"embeddings": tf.cast(head(features, training=False), tf.float32)}

        rest = convert(embeddings, embedder, "dynamic")

    # A uint8 input comes from the quantizer, which folds the cast into the first quantization.
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="images")])
    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embeddings" if rest is None else "features": embed(backbone, images)}

    calibrated = convert(features, embedder, "calibrated", calibration)
    batches = [batch for (batch,) in _samples(calibration, shape[0] or 1)]
    expected = np.concatenate([np.asarray(embed(embedder, batch)) for batch in batches])
    return integers.quantize(
        calibrated, lambda model: model if rest is None else join(model, rest), batches, expected, input_dtype
    )


def convert(
    function: Any,
    embedder: keras.Model,
    quantize: str | None,
    calibration: np.ndarray | None = None,
) -> bytes:
    """Return the `.tflite` bytes of a `tf.function` over the embedder's variables: float32 (None), or `"dynamic"`.

    With `"calibrated"` they are float32, with the activations' ranges on the calibration images, for the quantizer.

    Raises:
        ValueError: If the graph needs ops that LiteRT does not have built in.
    """
    module = tf.Module()
    module.function = function
    concrete = function.get_concrete_function()
    module.weights = variables_read([concrete], embedder)
    with tempfile.TemporaryDirectory() as folder:
        # By way of a SavedModel the signature's names survive.
        tf.saved_model.save(module, folder, signatures={"serving_default": concrete}, options=save_options())
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "calibrated":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            calibrate_only(converter)
            converter.representative_dataset = lambda: _samples(calibration, concrete.inputs[0].shape[0] or 1)
        try:
            model = converter.convert()
        except Exception as error:
            raise ValueError(_refusal(embedder, error)) from error
    custom = [name for name in operators(model) if name.startswith(("CUSTOM", "Flex"))]
    if custom:
        raise ValueError(_refusal(embedder, f"ops that are not built in: {custom}"))
    result: bytes = model
    return result


def operators(model: bytes) -> list[str]:
    """Return the names of the operators in a `.tflite` file, sorted; custom and Flex ops as `CUSTOM name`."""
    with extras.needed("A .tflite file"):
        from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    content = schema.Model.GetRootAsModel(model, 0)
    found = set()
    for index in range(content.OperatorCodesLength()):
        code = content.OperatorCodes(index)
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        found.add(f"CUSTOM {code.CustomCode().decode()}" if name == "CUSTOM" else name)
    return sorted(found)


def write(
    path: str | os.PathLike[str],
    model: bytes,
    files: dict[str, bytes],
    check: Callable[[pathlib.Path], object] | None = None,
) -> pathlib.Path:
    """Write a model and its associated files as one `.tflite` file, whole or not at all.

    Its `metadata.json` gets the model's size and SHA-256 (`model_bytes`, `model_sha256`), which
    `verification.check_artifact` compares.
    """
    path = pathlib.Path(path)
    facts = json.loads(files["metadata.json"])
    facts |= {"model_bytes": len(model), "model_sha256": hashlib.sha256(model).hexdigest()}
    files = {**files, "metadata.json": metadata.as_json(facts)}
    publishing.require_space(path.parent, len(model) + sum(map(len, files.values())))
    with replacing(path) as temporary:
        temporary.write_bytes(model)
        with zipfile.ZipFile(temporary, "a") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        if check is not None:
            check(temporary)
    return path


def check_input_dtype(input_dtype: str) -> None:
    """Refuse what a `.tflite` file cannot take images as."""
    checks.choice("input_dtype", input_dtype, ("float32", "uint8"))


def _check(quantize: str | None, calibration: np.ndarray | None, size: tuple[int, int]) -> None:
    if quantize not in QUANTIZATIONS:
        raise checks.invalid("quantize", f"be {checks.listed(QUANTIZATIONS)}", checks.shown(quantize))
    if quantize != "int8":
        return
    if calibration is None or len(calibration) == 0:
        raise ValueError(
            "`calibration` must be some hundred typical images (N, H, W, 3), values 0..255, for quantize='int8'; "
            "received "
            "none. Without images, use quantize='dynamic'."
        )
    if np.shape(calibration)[1:] != (*size, 3):
        raise ValueError(
            f"`calibration` must be images (N, {size[0]}, {size[1]}, 3), as the model takes them; received shape "
            f"{np.shape(calibration)}."
        )


def _samples(calibration: np.ndarray | None, batch: int) -> Iterator[list[np.ndarray]]:
    """Yield the images in batches; the last one is filled up with the first images."""
    images = np.asarray(calibration)
    for start in range(0, len(images), batch):
        yield [images[np.arange(start, start + batch) % len(images)].astype(np.float32)]


def _refusal(embedder: keras.Model, error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The converter names the ops in the middle of its long message.
    telling = [line for line in lines if "ops:" in line.lower()] or lines[-1:]
    return (
        f"`embedder`={embedder.name!r} cannot run on LiteRT's built-in ops, and the runtime on phones has no others. "
        f"Replace the layer that needs them, or serve the SavedModel. The converter said: {' '.join(telling)}"
    )

"""What travels beside a model: facts, labels, warm-up requests, the model card."""

import datetime
import importlib.util
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_detreg import extras
from tf_detreg.export.inference import fingerprint

logger = logging.getLogger(__name__)

WARM_UP_BATCHES = (1, 8, 32)


def facts(embedder: keras.Model, image_size: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Return the entries of `metadata.json`: what a reader of the artifact has to know to use it right."""
    import tensorflow as tf

    import tf_detreg

    return {
        "format": "tf_detreg export",
        "name": embedder.name,
        "fingerprint": fingerprint(embedder),
        "image_size": list(image_size),
        "pixel_values": "0..255, RGB; scaling is inside the model",
        "resizing": "upright by EXIF, transparent on white, central crop to the aspect ratio, antialiased bilinear",
        "embedding_dim": int(embedder.outputs[0].shape[-1]),
        "similarity": "dot product of the unit vectors (cosine)",
        "parameters": int(embedder.count_params()),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "tf_detreg": getattr(tf_detreg, "__version__", "unknown"),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        **more,
    }


def extra_files(facts: dict[str, Any], class_names: Sequence[str] | None = None) -> dict[str, bytes]:
    """Return files by name: `metadata.json` and, with class names, `labels.txt` of one name a line."""
    files = {"metadata.json": as_json(facts)}
    if class_names is not None:
        files["labels.txt"] = one_a_line("class_names", class_names)
    return files


def as_json(facts: dict[str, Any]) -> bytes:
    """Return the bytes of `metadata.json`."""
    return json.dumps(facts, indent=2, ensure_ascii=False).encode()


def one_a_line(name: str, values: Sequence[Any]) -> bytes:
    """Return UTF-8 text of one value a line.

    Raises:
        ValueError: If a value holds a line break, which would shift all that follow.
    """
    texts = [str(value) for value in values]
    for text in texts:
        if "\n" in text or "\r" in text:
            raise ValueError(f"`{name}` must hold no line breaks; received {text!r}.")
    return "".join(f"{text}\n" for text in texts).encode()


def warm_up_wanted(asked: bool | None) -> bool:
    """Return whether to write warm-up requests; unless asked for, only where their messages are installed."""
    if asked is None:
        asked = importlib.util.find_spec("tensorflow_serving") is not None
        if not asked:
            logger.info("No warm-up requests were written: they need pip install 'tf-detreg[export]'.")
    return asked


def write_warm_up(path: str | os.PathLike[str], model_name: str, image_size: tuple[int, int]) -> None:
    """Write the requests that TensorFlow Serving replays before a version takes traffic: a TFRecord file of
    `PredictionLog` messages, for both signatures and a few batch sizes.

    Raises:
        ImportError: If `tensorflow-serving-api` is not installed.
    """
    import tensorflow as tf

    image = np.random.default_rng(0).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    encoded = [tf.io.encode_jpeg(image).numpy(), tf.io.encode_png(image).numpy()]
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for batch in WARM_UP_BATCHES:
            images = np.repeat(image[None].astype(np.float32), batch, axis=0)
            content = np.array((encoded * batch)[:batch], object)
            writer.write(prediction_log(model_name, "serving_default", {"images": images}))
            writer.write(prediction_log(model_name, "serve_bytes", {"image_bytes": content}))


def prediction_log(model_name: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """Return one serialized `PredictionLog` of a predict request.

    Raises:
        ImportError: If `tensorflow-serving-api` is not installed.
    """
    import tensorflow as tf

    with extras.needed("An export with warm_up=True"):
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
    log = PredictionLog()
    log.predict_log.request.model_spec.name = model_name
    log.predict_log.request.model_spec.signature_name = signature
    for name, value in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    result: bytes = log.SerializeToString()
    return result

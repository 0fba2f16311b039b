"""SavedModel folders for TensorFlow Serving: float images in, encoded bytes in, unit vectors out."""

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import deprecated
from tf_detreg.export import metadata, publishing
from tf_detreg.export.inference import image_size_of, inference_model
from tf_detreg.images.graph import decode_batch

WARM_UP = "tf_serving_warmup_requests"


@deprecated.renamed_arguments(labels="class_names")
def saved_model(
    embedder: keras.Model,
    directory: str | os.PathLike[str],
    version: int | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    features: bool = False,
    max_pixels: int = 64_000_000,
    class_names: Sequence[str] | None = None,
    card: str | None = None,
    warm_up: bool | None = None,
    about: dict[str, Any] | None = None,
    check: Callable[[pathlib.Path], object] | None = None,
) -> pathlib.Path:
    """Write an embedder as a SavedModel that TensorFlow Serving, TensorFlow alone and OpenVINO read.

    The folder holds these signatures; every one takes any batch size:

    - `serving_default`: `images`, float32 `(B, H, W, 3)`, pixel values 0..255 → `embeddings` `(B, dim)`;
    - `serve_bytes`: `image_bytes`, strings `(B,)`: JPEG, PNG, WebP, GIF (first frame) or BMP of any size. They are
      decoded, turned upright by their EXIF orientation and resized inside the graph exactly as in evaluation →
      `embeddings` and `valid` `(B,)`. A row that cannot be decoded, or that declares more than `max_pixels`, is a
      zero vector with `valid = false`; the other rows are not touched by it;
    - `serve_features` (on demand): `features` `(B, F)`, straight into the head → `embeddings`.

    Only the variables that inference reads are stored. The version appears under its number in one step, after all
    of it is on the disk; until then the folder has a name that TensorFlow Serving does not look at.

    Args:
        embedder: The plain inference model, images 0..255 to unit vectors: `MetricModel.embedder`, or a model whose
            last layer is a head.
        directory: The model's folder; versions are numbered folders inside it.
        version: Its number. Default: one more than the largest present, starting at 1.
        image_size: Side or (height, width) to which bytes are resized. Default: the model's input size.
        features: Whether to add `serve_features`. Default False.
        max_pixels: Most pixels that an encoded image may declare. Default 64 million (a phone's largest photo).
        class_names: Class names, stored as `assets.extra/labels.txt`.
        card: Markdown of the model card, stored as `README.md` beside the model. See `export.model_card`.
        warm_up: Whether to write the warm-up requests that TensorFlow Serving replays before it takes traffic
            (`assets.extra/tf_serving_warmup_requests`). Default: if `tensorflow-serving-api` is installed.
        about: More entries for `assets.extra/metadata.json`.
        check: Called with the finished folder before it is published; an exception from it keeps the version back.

    Returns:
        The path of the numbered folder.

    Raises:
        ValueError: If `embedder` is no plain embedder, its input size is unknown, or `version` exists already.
        ImportError: If `warm_up` is set and `tensorflow-serving-api` is not installed.
        OSError: If the disk is full or cannot be written; what was published before stays as it was.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.UnitNormalization()])
        >>> path = saved_model(model, tempfile.mkdtemp(), warm_up=False)
        >>> path.name, sorted(tf.saved_model.load(path).signatures)
        ('1', ['serve_bytes', 'serving_default'])
    """
    embedder = inference_model(embedder)
    height, width = image_size_of(embedder, image_size)
    module, signatures = build_module(embedder, (height, width), features=features, max_pixels=max_pixels)
    facts = metadata.facts(
        embedder, (height, width), max_pixels=max_pixels, signatures=sorted(signatures), **(about or {})
    )
    extra = metadata.extra_files(facts, class_names)

    def write(path: pathlib.Path) -> None:
        tf.saved_model.save(module, str(path), signatures=signatures, options=save_options())
        add_extra(path, extra, card)
        if metadata.warm_up_wanted(warm_up):
            name = pathlib.Path(directory).resolve().name
            metadata.write_warm_up(path / "assets.extra" / WARM_UP, name, (height, width))

    return publishing.publish(directory, version, write, needed=publishing.bytes_of(embedder.variables), check=check)


def save_options(op_namespaces: Sequence[str] = ()) -> tf.saved_model.SaveOptions:
    """Return how every SavedModel is written: without gradients, which nobody asks of a model that serves.

    TensorFlow registers the custom gradients of a model that it loads, and never forgets them: a server would keep
    every version that it has loaded.

    Args:
        op_namespaces: Of operations that are not TensorFlow's own. Default: none.
    """
    return tf.saved_model.SaveOptions(namespace_whitelist=list(op_namespaces), experimental_custom_gradients=False)


def add_extra(path: pathlib.Path, extra: dict[str, bytes], card: str | None) -> None:
    """Write the files of `assets.extra` and the card into a version folder."""
    (path / "assets.extra").mkdir(exist_ok=True)
    for name, content in extra.items():
        (path / "assets.extra" / name).write_bytes(content)
    if card:
        (path / "README.md").write_text(card, encoding="utf-8")


def build_module(
    embedder: keras.Model, image_size: tuple[int, int], *, features: bool = False, max_pixels: int = 64_000_000
) -> tuple[tf.Module, dict[str, Any]]:
    """Return the graph functions of an embedder and a module that holds exactly the variables they read."""
    channels = embedder.inputs[0].shape[-1]

    @tf.function(input_signature=[tf.TensorSpec((None, *image_size, channels), tf.float32, name="images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embeddings": embed_any(embedder, images)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(image_bytes, image_size, max_pixels=max_pixels)
        embeddings = serving_default(images)["embeddings"]
        return {"embeddings": tf.where(valid[:, None], embeddings, 0.0), "valid": valid}

    functions = {"serving_default": serving_default, "serve_bytes": serve_bytes}
    if features:
        functions["serve_features"] = _features_function(embedder)
    module = tf.Module()
    module.functions = list(functions.values())
    concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    module.weights = variables_read(concrete.values(), embedder)
    return module, concrete


def embed(embedder: keras.Model, images: tf.Tensor) -> tf.Tensor:
    return tf.cast(embedder(images, training=False), tf.float32)


def embed_any(embedder: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Return the same for any number of images, none included, which some convolution kernels refuse."""
    count = tf.shape(images)[0]
    # An empty batch is given one black image, whose row is dropped.
    images = tf.pad(images, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
    return embed(embedder, images)[:count]


def variables_read(concrete_functions: Iterable[Any], embedder: keras.Model) -> list[tf.Variable]:
    """Return those of the model's variables that the functions capture: what inference needs, and nothing else."""
    captured = {id(handle) for function in concrete_functions for handle in function.graph.external_captures}
    variables = [variable.value for variable in embedder.variables]
    return [variable for variable in variables if id(variable.handle) in captured]


def _features_function(embedder: keras.Model) -> Any:
    head = embedder.layers[-1]
    width = head.input.shape[-1]

    @tf.function(input_signature=[tf.TensorSpec((None, width), tf.float32, name="features")])
    def serve_features(features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embeddings": tf.cast(head(features, training=False), tf.float32)}

    return serve_features

"""An embedder and the gallery that it searches, in one artifact: image in, ids and scores of the nearest items out."""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import checks, deprecated
from tf_detreg.export import deciding, lite, metadata, publishing
from tf_detreg.export.inference import fingerprint, image_size_of, inference_model
from tf_detreg.export.savedmodel import WARM_UP, add_extra, embed, embed_any, save_options, variables_read
from tf_detreg.files import readable
from tf_detreg.images.graph import decode_batch
from tf_detreg.index import Index
from tf_detreg.retrieval import approximate, scann_library
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.identity import same_model, short

LARGEST_MOBILE_BYTES = 1_500_000_000
_SAMPLE = 512  # gallery items, slightly moved: a ScaNN searcher is tuned on half of them and measured on the others
_LAYOUT = approximate.Layout(density=2.0)  # small leaves: a served query comes alone

Find = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Embeddings `(B, dim)` → indices and scores `(B, k)` of the nearest items."""


@deprecated.renamed_arguments(neighbour_recall="neighbor_recall")
def retrieval_saved_model(
    embedder: keras.Model,
    gallery: np.ndarray | Index,
    directory: str | os.PathLike[str],
    version: int | None = None,
    *,
    ids: Sequence[Any] | None = None,
    k: int = 10,
    engine: str = "exact",
    gallery_model: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    max_pixels: int = 64_000_000,
    neighbor_recall: float = 0.95,
    card: str | None = None,
    warm_up: bool | None = None,
    decision: Decision | None = None,
) -> pathlib.Path:
    """Write a SavedModel that takes images and answers with the ids and scores of the k nearest gallery items.

    Signatures: `serving_default` (`images`, float), `serve_bytes` (`image_bytes`; a broken image gets empty ids, zero
    scores and `valid = false`) and `serve_embeddings` (`embeddings`, for vectors made elsewhere). Each answers with
    `ids` `(B, k)` strings and `scores` `(B, k)` cosines, best first.

    Args:
        embedder: The plain inference model.
        gallery: `(N, dim)` unit vectors, made with this very embedder, or a `index.Index` of them.
        directory: The model's folder.
        version: Its number. Default: the next free one.
        ids: N names of the items, answered as strings. Default: the index's own, or their row numbers.
        k: Neighbors to answer with. Default 10.
        engine: `"exact"` (default; runs on every TensorFlow Serving) or `"scann"` (approximate, for large galleries:
            needs a server with ScaNN's ops, such as the image google/tf-serving-scann, and `import scann` in Python).
        gallery_model: `fingerprint` of the model that made the gallery (an index knows it); another one is refused.
        image_size: Side or (height, width). Default: the model's input size.
        max_pixels: Most pixels that an encoded image may declare. Default 64 million.
        neighbor_recall: For ScaNN: the share of true neighbors that it has to find, measured while exporting and
            stored in `metadata.json`. Default 0.95.
        card: Markdown of the model card.
        warm_up: Whether to write warm-up requests. Default: if `tensorflow-serving-api` is installed.
        decision: From which score on a match counts, as `retrieval.calibrate` finds it: adds the outputs
            `probabilities` and `accepted`, both `(B, k)`. Default: that of the index, if it has one.

    Returns:
        The path of the numbered folder.

    Raises:
        ValueError: If gallery, ids, k, decision and embedder do not fit together, or ScaNN misses `neighbor_recall`.
        ImportError: If ScaNN is asked for and not installed.
        OSError: If the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.UnitNormalization()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (5, 4, 4, 3)).astype("float32")
        >>> path = retrieval_saved_model(model, model(images), tempfile.mkdtemp(), ids="abcde", k=2, warm_up=False)
        >>> found = tf.saved_model.load(path).signatures["serving_default"](images=images[:1])
        >>> found["ids"].numpy()[0, 0]
        b'a'
    """
    embedder = inference_model(embedder)
    size = image_size_of(embedder, image_size)
    decision = deciding.decision_for(embedder, gallery, decision)
    gallery, ids = check_gallery(embedder, gallery, ids, k, gallery_model)
    checks.choice("engine", engine, ("exact", "scann"))
    module = tf.Module()
    module.ids = tf.Variable(np.array(ids, object), trainable=False, name="ids", dtype=tf.string)
    measured: dict[str, Any] = {}
    if engine == "exact":
        module.gallery = tf.Variable(gallery, trainable=False, name="gallery")
        find = _exact(module, k)
    else:
        find, measured = _scann(module, gallery, k, neighbor_recall)
    signatures = _signatures(module, embedder, find, size, gallery.shape[1], max_pixels, decision)
    facts = metadata.facts(
        embedder,
        size,
        engine=engine,
        gallery_items=len(gallery),
        k=k,
        signatures=sorted(signatures),
        **measured,
        **deciding.facts(decision),
    )
    options = save_options(["Scann"] if engine == "scann" else [])

    def write(path: pathlib.Path) -> None:
        tf.saved_model.save(module, str(path), signatures=signatures, options=options)
        add_extra(path, metadata.extra_files(facts), card)
        if metadata.warm_up_wanted(warm_up):
            metadata.write_warm_up(path / "assets.extra" / WARM_UP, pathlib.Path(directory).resolve().name, size)

    needed = publishing.bytes_of(embedder.variables) + gallery.nbytes
    return publishing.publish(directory, version, write, needed=needed)


def retrieval_litert(
    embedder: keras.Model,
    gallery: np.ndarray | Index,
    path: str | os.PathLike[str],
    *,
    ids: Sequence[Any] | None = None,
    k: int = 10,
    gallery_model: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    input_dtype: str = "float32",
    decision: Decision | None = None,
) -> pathlib.Path:
    """Write a `.tflite` file that searches offline: image in, positions and scores of the k nearest items out.

    The gallery lies inside as int8 with one scale an item (N·dim bytes), the product and the top-k are built-in ops of
    the graph, and the embedder's weights are int8 with float activations (`quantize="dynamic"`). The signature
    `serving_default` takes `images` `(1, H, W, 3)` and answers with `indices` and `scores` `(1, k)`, best first; line
    `indices[i]` (from 0) of `ids.txt`, in the zip archive behind the model, is the item's id.

    Args:
        embedder: The plain inference model.
        gallery: `(N, dim)` unit vectors, made with this very embedder, or a `index.Index` of them. 100,000 items
            are well tested.
        path: The `.tflite` file.
        ids: N names of the items, without line breaks. Default: the index's own, or their row numbers.
        k: Neighbors to answer with. Default 10.
        gallery_model: `fingerprint` of the model that made the gallery (an index knows it); another one is refused.
        image_size: Side or (height, width). Default: the model's input size.
        input_dtype: `"float32"` (default) or `"uint8"`.
        decision: From which score on a match counts, as `retrieval.calibrate` finds it: adds the outputs
            `probabilities` and `accepted`, both `(1, k)`. Default: that of the index, if it has one.

    Returns:
        The path of the file.

    Raises:
        ValueError: If gallery, ids, k and embedder do not fit together, or the gallery is too large for one file.
        OSError: If the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.UnitNormalization()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (5, 4, 4, 3)).astype("float32")
        >>> file = retrieval_litert(model, model(images), os.path.join(tempfile.mkdtemp(), "m.tflite"), k=2)
        >>> file.name
        'm.tflite'
    """
    lite.check_input_dtype(input_dtype)
    embedder = inference_model(embedder)
    size = image_size_of(embedder, image_size)
    decide = deciding.outputs(decision := deciding.decision_for(embedder, gallery, decision))
    gallery, ids = check_gallery(embedder, gallery, ids, k, gallery_model)
    if gallery.nbytes > LARGEST_MOBILE_BYTES:
        raise ValueError(
            f"`gallery` must be at most {LARGEST_MOBILE_BYTES // (4 * gallery.shape[1])} items of this width to be "
            f"converted into one .tflite file; received {len(gallery)} × {gallery.shape[1]}. Serve it instead."
        )

    @tf.function(input_signature=[tf.TensorSpec((1, *size, 3), input_dtype, name="images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        embeddings = embed(embedder, tf.cast(images, tf.float32))
        scores, indices = tf.math.top_k(tf.matmul(embeddings, gallery, transpose_b=True), k)
        return {"indices": indices, "scores": scores, **decide(scores)}

    model = lite.convert(serving_default, embedder, "dynamic")
    facts = metadata.facts(
        embedder,
        size,
        quantization="dynamic",
        input_dtype=input_dtype,
        gallery_items=len(gallery),
        k=k,
        **deciding.facts(decision),
    )
    files = metadata.extra_files(facts) | {"ids.txt": metadata.one_a_line("ids", ids)}
    return lite.write(path, model, files)


def check_gallery(
    embedder: keras.Model, gallery: np.ndarray | Index, ids: Sequence[Any] | None, k: int, gallery_model: str | None
) -> tuple[np.ndarray, list[str]]:
    """Return the gallery as float32 rows and the ids as strings.

    Raises:
        ValueError: If they do not fit the embedder or one another.
    """
    if isinstance(gallery, Index):
        ids, gallery_model = gallery.ids if ids is None else ids, gallery_model or gallery.fingerprint
        gallery = gallery.embeddings
    gallery = np.asarray(gallery, np.float32)
    dim = embedder.outputs[0].shape[-1]
    if gallery.ndim != 2 or gallery.shape[1] != dim or not len(gallery):
        raise ValueError(
            f"`gallery` must be (N, {dim}) as embedder={embedder.name!r} makes it; received {gallery.shape}. "
            "Embed the gallery with this model."
        )
    mark = fingerprint(embedder)
    if gallery_model is not None and not same_model(gallery_model, mark):
        raise ValueError(
            f"`gallery` must be of this model (fingerprint {short(mark)}); received one made by another model "
            f"({short(gallery_model)}): its distances mean nothing here. Embed the gallery again."
        )
    lengths = np.linalg.norm(gallery, axis=1)
    if not np.allclose(lengths, 1.0, atol=1e-3):
        worst = int(np.nan_to_num(np.abs(lengths - 1.0), nan=np.inf).argmax())
        raise ValueError(
            f"`gallery` must hold rows of length 1; received {lengths[worst]} in row {worst}. "
            "Leave out images that could not be read."
        )
    names = [readable(str(name)) for name in (range(len(gallery)) if ids is None else ids)]
    if len(names) != len(gallery):
        raise checks.invalid("ids", f"name each of the {len(gallery)} items", f"{len(names)}")
    checks.integer("k", k, 1, len(gallery))
    return gallery, names


def _signatures(
    module: tf.Module,
    embedder: keras.Model,
    find: Find,
    size: tuple[int, int],
    dim: int,
    max_pixels: int,
    decision: Decision | None,
) -> dict[str, Any]:
    decide = deciding.outputs(decision)

    @tf.function(input_signature=[tf.TensorSpec((None, dim), tf.float32, name="embeddings")])
    def serve_embeddings(embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        indices, scores = find(tf.math.l2_normalize(embeddings, axis=-1))
        return {"ids": tf.gather(module.ids, indices), "scores": scores, **decide(scores)}

    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3), tf.float32, name="images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        result: dict[str, tf.Tensor] = serve_embeddings(embed_any(embedder, images))
        return result

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(image_bytes, size, max_pixels=max_pixels)
        found = serve_embeddings(embed_any(embedder, images))
        nothing = {"ids": "", "scores": 0.0, "probabilities": 0.0, "accepted": False}
        return {name: tf.where(valid[:, None], found[name], nothing[name]) for name in found} | {"valid": valid}

    functions = {
        "serving_default": serving_default,
        "serve_bytes": serve_bytes,
        "serve_embeddings": serve_embeddings,
    }
    module.functions = list(functions.values())
    concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    module.weights = variables_read(concrete.values(), embedder)
    return concrete


def _exact(module: tf.Module, k: int) -> Find:
    def find(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores, indices = tf.math.top_k(tf.matmul(embeddings, module.gallery, transpose_b=True), k)
        return indices, scores

    return find


def _scann(module: tf.Module, gallery: np.ndarray, k: int, wanted: float) -> tuple[Find, dict[str, Any]]:
    """Return a ScaNN searcher on the module, visiting as many leaves as the wanted neighbor recall takes."""
    scann_ops = scann_library.operations()
    build = functools.partial(approximate.Tree.build, in_tensorflow=True)
    tuned = approximate.calibrate(
        _near(gallery), gallery, k, target=wanted, layout=_LAYOUT, build=build, progress=False
    )
    if tuned.recall < wanted:
        raise ValueError(
            f"ScaNN finds {tuned.recall:.3f} of the true neighbors, less than neighbor_recall={wanted}, even when it "
            'visits every leaf. Use engine="exact".'
        )
    tree = cast(approximate.Tree, tuned.tree)
    module.searcher = tree.searcher.serialize_to_module()

    def find(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The searcher is taken up again inside the graph, so that the saved model carries all it needs.
        loaded = scann_ops.searcher_from_module(module.searcher)
        result: tuple[tf.Tensor, tf.Tensor] = tf.cond(
            tf.shape(embeddings)[0] > 0,
            lambda: tuple(loaded.search_batched(embeddings, k, max(k, tree.rescored), tree.visited)),
            lambda: (tf.zeros((0, k), tf.int32), tf.zeros((0, k))),  # ScaNN's op fails on an empty batch
        )
        return result

    return find, {"neighbor_recall": tuned.recall, "leaves": tree.leaves, "leaves_visited": tree.visited}


def _near(gallery: np.ndarray) -> np.ndarray:
    """Return queries near gallery items, on which a searcher is tuned and measured."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(gallery), min(_SAMPLE, len(gallery)), replace=False)
    queries = gallery[chosen] + rng.normal(0, 0.3 / gallery.shape[1] ** 0.5, (len(chosen), gallery.shape[1]))
    result: np.ndarray = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    return result

"""What may be exported: a plain embedder, nothing of its training."""

from typing import Any

import keras
import numpy as np

from tf_detreg import checks
from tf_detreg.backbones.lora import merge_lora
from tf_detreg.retrieval.identity import fingerprint

__all__ = ["fingerprint", "image_size_of", "inference_model", "pixels"]

TRAINING_ONLY = ("proxies", "rival")


def inference_model(model: keras.Model) -> keras.Model:
    """Return the plain inference model of `model`, built and free of everything that only training needs.

    Low-rank factors (LoRA) are merged into the weights of a copy.

    Args:
        model: An embedder, or a `MetricModel` (then its `.embedder` is taken).

    Raises:
        ValueError: If it is no built Keras model of one image input and one `(B, dim)` output, or if it holds
            proxies or a rival head.
    """
    embedder = getattr(model, "embedder", model)
    if not isinstance(embedder, keras.Model):
        raise checks.invalid("embedder", "be a keras.Model", type(model).__name__)
    if embedder.built and not isinstance(embedder, keras.Sequential) and not getattr(embedder, "inputs", None):
        raise ValueError(
            f"`embedder` must be a functional model, which shows its inputs; received the subclassed model "
            f"{embedder.name!r}. Put one around it: images = keras.Input((H, W, 3)); keras.Model(images, "
            "embedder(images))."
        )
    if not embedder.built or len(getattr(embedder, "inputs", None) or ()) != 1:
        raise ValueError(
            f"`embedder` must be built with one image input; received {embedder.name!r}, which is not. "
            "Start a Sequential model with keras.Input((H, W, 3)), or call it once on a batch of images."
        )
    ranks = len(embedder.inputs[0].shape), len(embedder.outputs[0].shape) if len(embedder.outputs) == 1 else None
    if ranks != (4, 2):
        raise ValueError(
            f"`embedder` must map images (B, H, W, 3) to vectors (B, dim); received {embedder.name!r} with input "
            f"{embedder.inputs[0].shape} and output {[tuple(o.shape) for o in embedder.outputs]}."
        )
    forbidden = [v.path for v in embedder.variables if any(word in v.path for word in TRAINING_ONLY)]
    if forbidden:
        raise ValueError(
            f"`embedder` must not hold what only training needs; received {forbidden[:3]}. Export "
            "`MetricModel.embedder`; of a plain "
            "model with a Dueling head, `MetricModel(model, loss).embedder` is the part to export."
        )
    return merge_lora(embedder)


def image_size_of(embedder: keras.Model, image_size: int | tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (height, width) at which the model takes images.

    Raises:
        ValueError: If neither the model nor `image_size` says it, or if the two differ.
    """
    built = embedder.inputs[0].shape[1:3]
    if image_size is None:
        if None in built:
            raise checks.invalid("image_size", "be given, e.g. 224: the embedder takes images of any size", "None")
        return int(built[0]), int(built[1])
    size = (image_size, image_size) if isinstance(image_size, int | np.integer) else tuple(image_size)
    if any(known not in (None, asked) for known, asked in zip(built, size, strict=True)):
        raise checks.invalid("image_size", f"be the size of the model's input, {tuple(built)}", f"{size}")
    return int(size[0]), int(size[1])


def pixels(images: Any, labels: Any, image_size: tuple[int, int], most: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images as float32 `(N, H, W, 3)`, and their labels or None.

    Args:
        images: An array, or an `ImageSet` (then its first `most` readable images, with their labels).
        labels: Of an array; None for none.
        image_size: (height, width) at which an `ImageSet` is decoded.
        most: Images of an `ImageSet` to take.

    Raises:
        ValueError: If there is no image, or the labels are not as many.
    """
    if hasattr(images, "ordered"):
        batches = images.subset(np.arange(min(most, len(images)))).ordered(64, image_size=image_size)
        parts = [(rows.numpy(), ids.numpy()) for rows, ids in batches] or [(np.zeros((0, *image_size, 3)), np.zeros(0))]
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"`images` must be (N, H, W, 3) with N of at least 1; received shape {images.shape}.")
    if labels is not None and len(labels) != len(images):
        raise checks.invalid("labels", f"be one an image, {len(images)}", f"{len(labels)}")
    return images, labels

"""What is given to `fit`, looked at before and after: the sentences of a direct call, also from inside a graph."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.labels import check_labels

# What a check inside a graph says: its text, and the values that it was given.
_FAILED = re.compile(r"assertion failed: \[([`\w][^\]]*)\]((?: \[[^\]]*\])*)")


def check_arrays(images: object, labels: object, image_shape: tuple[int | None, ...]) -> tuple[object, object]:
    """Return images and labels that `fit` was given as arrays, with labels as an array.

    Args:
        images: Of `fit`: an array or tensor; anything else, such as a dataset, is returned as it is.
        labels: Of `fit`.
        image_shape: Without the batch.

    Raises:
        ValueError: If the two are swapped, of the wrong shape, or the labels are no numbers.
    """
    if not isinstance(images, np.ndarray | tf.Tensor | list | tuple) or labels is None:
        return images, labels
    images = np.asarray(images) if isinstance(images, list | tuple) else images
    if isinstance(labels, list | tuple):
        try:
            labels = np.asarray(labels)
        except ValueError as error:
            raise checks.invalid("labels", "be one class number for each image", f"a ragged list ({error})") from error
    check_shapes(tuple(images.shape), tuple(getattr(labels, "shape", ())), image_shape)
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "iufb":
        kind = "strings" if labels.dtype.kind in "US" else f"dtype {labels.dtype}"
        raise ValueError(
            f"`labels` must be integers (class numbers); received {kind}. Number them: names, labels = "
            "np.unique(labels, return_inverse=True)."
        )
    return images, labels


def check_shapes(images: tuple[Any, ...], labels: tuple[Any, ...], image_shape: tuple[Any, ...]) -> None:
    """Make sure that a batch of images fits the embedder.

    Raises:
        ValueError: If it does not; it says so if images and labels are swapped.
    """
    if _fits(images[1:], image_shape):
        return
    swapped = " images and labels are swapped: give (images, labels)." if _fits(labels[1:], image_shape) else ""
    wanted = ", ".join("any" if side is None else str(side) for side in image_shape)
    raise ValueError(f"`images` must have shape (batch, {wanted}); received {images}.{swapped}")


def check_dense(images: object, labels: object) -> None:
    """Make sure that a batch is not ragged.

    Raises:
        ValueError: If it is.
    """
    if isinstance(images, tf.RaggedTensor):
        raise checks.invalid(
            "images",
            "have one size in a batch",
            "a RaggedTensor",
            "Resize them before batching, as in "
            "dataset.map(lambda image, label: (tf.image.resize(image, (height, width)), label)).batch(…).",
        )
    if isinstance(labels, tf.RaggedTensor):
        raise checks.invalid(
            "labels",
            "have shape (batch,) or (batch, 1), one class number for each image",
            "a RaggedTensor",
            "For several labels of an image take losses.NPairsMultilabel and columns of 0 and 1.",
        )


def class_numbers(labels: tf.Tensor) -> tf.Tensor:
    """Return one-hot rows `(B, C)` of floats as class numbers `(B,)`, other labels as they are.

    Keras' `label_mode="categorical"` makes such rows.
    """
    if labels.shape.rank != 2 or labels.shape[1] in (None, 1) or not labels.dtype.is_floating:
        return labels
    return check_labels(labels, tf.zeros((tf.shape(labels)[0], 2)))


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what a check of ours said inside a graph as the `ValueError` that it is outside."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _FAILED.search(str(error))
        if found is None:
            raise
        values = ", ".join(re.findall(r"\[([^\]]*)\]", found[2]))
        raise ValueError(f"{found[1]} {values}.") from error


def _fits(shape: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    known = len(shape) == len(wanted)
    return known and all(a is None or b is None or a == b for a, b in zip(shape, wanted, strict=True))

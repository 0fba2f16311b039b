"""One check of labels for every loss and miner, so that a wrong label never turns into a silently wrong number."""

from typing import Any

import tensorflow as tf

SHAPE = "`labels` must have shape (batch,) or (batch, 1), one class number for each embedding"


def check_labels(labels: Any, embeddings: tf.Tensor, num_classes: int | None = None) -> tf.Tensor:
    """Return labels as int32 `(B,)`, or raise an error that says what is wrong with them.

    A wrong type or shape raises `ValueError` at once, also while a graph is being built. Values are known only when
    the graph runs: a negative or too large label raises `ValueError` eagerly and `tf.errors.InvalidArgumentError`
    with the same text from inside `fit`. A graph that XLA compiles cannot raise: there such labels become -1, and
    `poisoned_by_labels` makes the loss NaN.

    Args:
        labels: Integers, `(B,)` or `(B, 1)`; or one-hot rows `(B, C)` of any numeric type, of which the class is taken.
        embeddings: `(B, dim)`.
        num_classes: Number of known classes C. Default None: every label that int32 holds is accepted.

    Raises:
        ValueError: If labels are no class numbers, do not fit the embeddings, or (eagerly) are out of range.

    Example:

    >>> check_labels([[2], [0]], tf.zeros([2, 4])).numpy().tolist()
    [2, 0]
    >>> check_labels([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], tf.zeros([2, 4])).numpy().tolist()
    [2, 0]
    """
    labels = as_labels(labels)
    embeddings = as_embeddings(embeddings)
    refuse_swapped(labels, embeddings)
    if _one_hot_shape(labels, num_classes):
        return _from_one_hot(labels, embeddings, num_classes)
    if not labels.dtype.is_integer:
        raise ValueError(
            f"`labels` must be integers (class numbers); received dtype {labels.dtype.name}. "
            "Convert them with labels.astype('int32')."
        )
    return _in_range(_one_per_row(labels, embeddings), num_classes)


def as_labels(labels: Any) -> tf.Tensor:
    """Return labels as a tensor of numbers, or raise a `ValueError` that says why they are none."""
    if isinstance(labels, tf.RaggedTensor):
        raise ValueError(f"{SHAPE}; received ragged labels. Pad them, or give each embedding one label.")
    try:
        labels = tf.convert_to_tensor(labels)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{SHAPE}; received {type(labels).__name__} that is no array of numbers: {_first_line(error)}"
        ) from error
    if labels.dtype == tf.string:
        raise ValueError(
            "`labels` must be integers (class numbers); received strings. Number them: names, labels = "
            "np.unique(labels, return_inverse=True), or with keras.layers.StringLookup in a tf.data pipeline."
        )
    return labels


def as_embeddings(embeddings: Any) -> tf.Tensor:
    """Return embeddings as a tensor of real numbers, or raise a `ValueError` that says why they are none."""
    if isinstance(embeddings, tf.RaggedTensor):
        raise ValueError("`embeddings` must have shape (batch, dim); received a ragged tensor.")
    try:
        embeddings = tf.convert_to_tensor(embeddings)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`embeddings` must have shape (batch, dim); received {type(embeddings).__name__} that is no array of "
            f"numbers: {_first_line(error)}"
        ) from error
    if not (embeddings.dtype.is_floating or embeddings.dtype.is_integer):
        raise ValueError(f"`embeddings` must be floats; received dtype {embeddings.dtype.name}.")
    return embeddings


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def refuse_swapped(labels: tf.Tensor, embeddings: tf.Tensor) -> None:
    """Raise a `ValueError` if embeddings are where the labels belong, and labels where the embeddings do."""
    wide = labels.shape.rank == 2 and labels.shape[1] != 1 and labels.dtype.is_floating
    flat = embeddings.shape.rank == 1 or (embeddings.shape.rank == 2 and embeddings.shape[1] == 1)
    if wide and flat:
        raise ValueError(
            f"`labels` must come first: loss(labels, embeddings); received labels of shape {tuple(labels.shape)} and "
            f"embeddings of shape {tuple(embeddings.shape)}, which seem to be swapped."
        )


def _one_hot_shape(labels: tf.Tensor, num_classes: int | None) -> bool:
    """Return whether labels are columns of numbers, one a class."""
    if labels.shape.rank != 2 or labels.shape[1] in (None, 1) or labels.dtype.is_complex:
        return False
    return num_classes is None or labels.shape[1] == num_classes


def _from_one_hot(labels: tf.Tensor, embeddings: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    values = tf.cast(labels, tf.float32)
    rows_fit = (tf.reduce_sum(tf.cast(values == 1, tf.int32), axis=1) == 1) & (
        tf.math.count_nonzero(values, axis=1) == 1
    )
    text = (
        "`labels` must be class numbers, or one-hot: one 1 in each row and else 0. (Soft labels have no class; several "
        "labels a sample are for losses.NPairsMultilabel.) Smallest and largest value received:"
    )
    # Where nothing can be raised, a wrong row becomes -1 and the loss NaN.
    classes = tf.where(
        rows_fit, tf.argmax(_guarded(tf.reduce_all(rows_fit), text, values), axis=1, output_type=tf.int32), -1
    )
    return _in_range(_one_per_row(classes, embeddings), num_classes)


def check_multilabels(labels: Any, embeddings: tf.Tensor) -> tf.Tensor:
    """Return zeros and ones `(B, L)`, one column a label, as booleans; or raise as `check_labels` (never under XLA).

    Args:
        labels: Booleans, or numbers of which only 0 and 1 may occur, `(B, L)`.
        embeddings: `(B, dim)`.

    Raises:
        ValueError: If the shape does not fit the embeddings, or (eagerly) another value than 0 or 1 occurs.
    """
    labels, embeddings = as_labels(labels), as_embeddings(embeddings)
    text = "`labels` must have shape (batch, number of labels), with a 1 for each label that a sample has; received"
    if labels.shape.rank is None:  # a tf.function that saw labels of several ranks
        with tf.control_dependencies([tf.debugging.Assert(tf.rank(labels) == 2, [text, tf.shape(labels)])]):
            labels = tf.reshape(labels, [tf.shape(embeddings)[0], -1])
    if labels.shape.rank != 2 or not labels.shape[:1].is_compatible_with(embeddings.shape[:1]):
        raise ValueError(f"{text} labels {labels.shape} with embeddings {embeddings.shape}.")
    if labels.dtype.is_bool:
        return labels
    fine = tf.reduce_all((labels == 0) | (labels == 1))
    text = "`labels` must hold only 0 and 1. Smallest and largest value received:"
    return _guarded(fine, text, labels) == 1


def poisoned_by_labels(loss: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the loss, or NaN without a gradient if `check_labels` found a wrong label where it could not raise."""
    return tf.where(tf.reduce_all(labels >= 0), loss, float("nan")) if labels.dtype.is_integer else loss


def _one_per_row(labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    if embeddings.shape.rank != 2:
        raise ValueError(f"`embeddings` must have shape (batch, dim); received {tuple(embeddings.shape)}.")
    if labels.shape.rank is None:  # a tf.function that saw labels of both ranks
        one_each = (tf.size(labels) == tf.shape(embeddings)[0]) & (tf.rank(labels) <= 2)
        text = f"{SHAPE}; received labels of shape:"
        with tf.control_dependencies([tf.debugging.Assert(one_each, [text, tf.shape(labels)])]):
            return tf.reshape(labels, [-1])
    flat = tf.squeeze(labels, 1) if labels.shape.rank == 2 and labels.shape[1] == 1 else labels
    if flat.shape.rank != 1 or not flat.shape[:1].is_compatible_with(embeddings.shape[:1]):
        raise ValueError(f"{SHAPE}; received labels {labels.shape} with embeddings {embeddings.shape}.")
    return flat


def _in_range(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    wide = tf.cast(labels, tf.int64)
    largest = tf.int32.max if num_classes is None else num_classes - 1
    known = (wide >= 0) & (wide <= largest)
    if num_classes is None:
        text = (
            "`labels` must not be negative, nor above 2147483647. Drop unlabeled samples, or number the classes anew. "
            "Smallest and largest label received:"
        )
    else:
        text = (
            f"`labels` must lie in 0 .. {largest} (num_classes={num_classes}). Number the classes from 0 without gaps, "
            "or give the loss a larger num_classes. (Classes that training does not see have no proxies: measure them "
            "with callbacks.RetrievalEvaluation, not with validation_data.) Smallest and largest label received:"
        )
    return tf.cast(tf.where(known, _guarded(tf.reduce_all(known), text, wide), -1), tf.int32)


def _guarded(fine: tf.Tensor, text: str, values: tf.Tensor) -> tf.Tensor:
    """Return `values` if `fine`; else raise an error with the text and the range of the values."""
    if tf.executing_eagerly():
        if not fine:
            raise ValueError(f"{text} {tf.reduce_min(values).numpy()}, {tf.reduce_max(values).numpy()}.")
        return values
    with tf.control_dependencies([tf.debugging.Assert(fine, [text, tf.reduce_min(values), tf.reduce_max(values)])]):
        return tf.identity(values)

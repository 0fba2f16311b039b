"""One check of labels for every loss and miner, so that a wrong label never turns into a silently wrong number."""

import tensorflow as tf

SHAPE = "labels must have shape (batch,) or (batch, 1), one class number for each embedding"


def check_labels(labels, embeddings: tf.Tensor, num_classes: int | None = None) -> tf.Tensor:
    """Labels as int32 `(B,)`, or an error that says what is wrong with them.

    A wrong type or shape raises `ValueError` at once, also while a graph is being built. Values are known only when
    the graph runs: a negative or too large label raises `ValueError` eagerly and `tf.errors.InvalidArgumentError`
    with the same text from inside `fit`. A graph that XLA compiles cannot raise: there such labels become -1, and
    `poisoned_by_labels` makes the loss NaN.

    Args:
        labels: integers, `(B,)` or `(B, 1)`.
        embeddings: `(B, dim)`.
        num_classes: number of known classes C. Defaults to `None`: every label that int32 holds is accepted.

    Raises:
        ValueError: if labels are not integers, do not fit the embeddings, or (eagerly) are out of range.

    Example:

    >>> check_labels([[2], [0]], tf.zeros([2, 4])).numpy().tolist()
    [2, 0]
    """
    labels = tf.convert_to_tensor(labels)
    if labels.dtype == tf.string:
        raise ValueError(
            "labels must be integers (class numbers), received strings. Number them: names, labels = "
            "np.unique(labels, return_inverse=True), or with keras.layers.StringLookup in a tf.data pipeline."
        )
    if not labels.dtype.is_integer:
        raise ValueError(
            f"labels must be integers (class numbers), received dtype {labels.dtype.name}. "
            "Convert them with labels.astype('int32'), or one-hot labels with labels.argmax(axis=-1). "
            "(A loss that owns weights belongs in training.MetricModel(embedder, loss): compile(loss=...) hands it "
            "floats, and would not train it.)"
        )
    return _in_range(_one_per_row(labels, embeddings), num_classes)


def check_multilabels(labels, embeddings: tf.Tensor) -> tf.Tensor:
    """Zeros and ones `(B, L)`, one column a label, as booleans; or an error as from `check_labels` (none under XLA).

    Args:
        labels: booleans, or numbers of which only 0 and 1 may occur, `(B, L)`.
        embeddings: `(B, dim)`.

    Raises:
        ValueError: if the shape does not fit the embeddings, or (eagerly) another value than 0 or 1 occurs.
    """
    labels = tf.convert_to_tensor(labels)
    text = "labels must have shape (batch, number of labels), with a 1 for each label that a sample has; received"
    if labels.shape.rank is None:  # a tf.function that saw labels of several ranks
        with tf.control_dependencies([tf.debugging.Assert(tf.rank(labels) == 2, [text, tf.shape(labels)])]):
            labels = tf.reshape(labels, [tf.shape(embeddings)[0], -1])
    if labels.shape.rank != 2 or not labels.shape[:1].is_compatible_with(embeddings.shape[:1]):
        raise ValueError(f"{text} labels {labels.shape} with embeddings {embeddings.shape}.")
    if labels.dtype.is_bool:
        return labels
    fine = tf.reduce_all((labels == 0) | (labels == 1))
    text = "labels must hold only 0 and 1. Smallest and largest value received:"
    return _guarded(fine, text, labels) == 1


def poisoned_by_labels(loss: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """A loss, or NaN without a gradient if `check_labels` found a wrong label where nothing could be raised."""
    return tf.where(tf.reduce_all(labels >= 0), loss, float("nan")) if labels.dtype.is_integer else loss


def _one_per_row(labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    if embeddings.shape.rank != 2:
        raise ValueError(f"embeddings must have shape (batch, dim), received {tuple(embeddings.shape)}.")
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
            "labels must not be negative, nor above 2147483647. Drop unlabelled samples, or number the classes anew. "
            "Smallest and largest label received:"
        )
    else:
        text = (
            f"labels must lie in 0 .. {largest} (num_classes={num_classes}). Number the classes from 0 without gaps, "
            "or give the loss a larger num_classes. (Classes that training does not see have no proxies: measure them "
            "with callbacks.RetrievalEvaluation, not with validation_data.) Smallest and largest label received:"
        )
    return tf.cast(tf.where(known, _guarded(tf.reduce_all(known), text, wide), -1), tf.int32)


def _guarded(fine: tf.Tensor, text: str, values: tf.Tensor) -> tf.Tensor:
    """`values`, if `fine`; else an error with the text and the range of the values."""
    if tf.executing_eagerly():
        if not fine:
            raise ValueError(f"{text} {tf.reduce_min(values).numpy()}, {tf.reduce_max(values).numpy()}.")
        return values
    with tf.control_dependencies([tf.debugging.Assert(fine, [text, tf.reduce_min(values), tf.reduce_max(values)])]):
        return tf.identity(values)

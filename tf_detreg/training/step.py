"""The pieces of a training step: one pass of a head, the value of a loss, and what replicas without rows need."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.replicas import GlobalBatch
from tf_detreg.training.interpolation import Interpolation


def images_and_labels(data: Any) -> tuple[Any, ...]:
    """Return a batch that `fit` was given as images and labels, or raise a `ValueError` if it is weighted."""
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if weights is not None:
        raise checks.invalid(
            "sample_weight",
            "be None, as `class_weight`: the losses of MetricModel compare the samples of a batch with each other",
            "weights",
            "Draw what matters more often (datasets' batches draw every class equally often), or give a pair loss to "
            "compile(loss=...) of a plain Keras model, which weights anchors.",
        )
    return images, labels


def through(
    head: Any,
    features: tf.Tensor,
    batch: GlobalBatch,
    training: bool | None,
    interpolation: Interpolation | None,
    mixing: Any,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return `z`, embeddings and R of this replica's rows: one pass of a head. Mixed points enter R only."""
    z = head.project(tf.cast(features, head.compute_dtype), training)
    points = z
    if mixing is not None and interpolation is not None:
        labels, all_labels = mixing
        own = rows_of_replica(z, batch)
        mixed = interpolation(own, labels, batch.gather(own), all_labels, offset=batch.offset)
        points = tf.concat([z, mixed], axis=0)
    y, log_scales = head.flow(points, training)
    regularity = tf.cast(head.regularity(log_scales), tf.float32)
    return rows_of_replica(z, batch), rows_of_replica(head.normalize(y[: tf.shape(z)[0]]), batch), regularity


def at_least_one_row(images: tf.Tensor, batch: GlobalBatch) -> tf.Tensor:
    """Return the images, or a black one where a replica has none: its terms get the weight 0, but must be numbers."""
    if batch.replicas == 1:
        return images
    return tf.pad(images, [[0, tf.cast(batch.local == 0, tf.int32)]] + [[0, 0]] * (images.shape.rank - 1))


def rows_of_replica(values: tf.Tensor, batch: GlobalBatch) -> tf.Tensor:
    """Return the rows that `at_least_one_row` did not add."""
    return values if batch.replicas == 1 else values[: batch.local]


def loss_value(loss: Any, labels: tf.Tensor, embeddings: tf.Tensor, training: bool | None) -> tf.Tensor:
    """Return a scalar loss, of the whole batch: Keras divides a mean reduction by the number of replicas."""
    if isinstance(loss, keras.losses.Loss):
        values = tf.convert_to_tensor(loss.call(labels, embeddings))
        value = tf.reduce_sum(values) if loss.reduction == "sum" else tf.reduce_mean(values)
    else:
        # A cross-batch memory only learns while training.
        mode = {"training": training} if "training" in inspect.signature(loss.call).parameters else {}
        value = tf.convert_to_tensor(loss(labels, embeddings, **mode))
    return tf.cast(value, tf.float32)


def width_of_proxies(loss: Any) -> int | None:
    """Return the size of a loss's proxies; None where it has none."""
    proxies = getattr(loss, "proxies", None)
    return None if proxies is None else int(proxies.shape[-1])


def proxies_of(loss: Any) -> tf.Tensor | None:
    """Return the proxies of a loss; None where it has none."""
    proxies = getattr(loss, "proxies", None)
    return None if proxies is None else tf.convert_to_tensor(proxies)


def numbered(names: list[str]) -> list[str]:
    """Return the names, later ones of a kind with their number: `a, a_1, a_2`."""
    return [name + (f"_{names[:at].count(name)}" if name in names[:at] else "") for at, name in enumerate(names)]


def miner_draws(loss: Any) -> keras.random.SeedGenerator | None:
    """Return the random numbers of a loss's miner; None where it has none."""
    return getattr(getattr(loss, "miner", None), "draws", None)

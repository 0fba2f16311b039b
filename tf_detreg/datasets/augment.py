"""Augmentation that follows from a seed a batch, so that a resumed run augments as the unbroken one did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.random import SeedGenerator

from tf_detreg._compat import takes_training


def augmenter(augment: Callable[..., Any] | None) -> Callable[..., Any]:
    """Turn what users give into a function of (images, seed).

    Args:
        augment: None; a Keras image preprocessing layer or a `keras.Sequential` of them (their own random state is
            replaced by the batch's seed); or a function of (images, seed) with a seed tensor int32 (2,) for
            `tf.random.stateless_*` and `tf.image.stateless_*`.

    Raises:
        ValueError: For anything that cannot be called.
    """
    if augment is None:
        return lambda images, seed: images
    if not callable(augment):
        raise ValueError(f"`augment` must be a Keras layer or a function of (images, seed); received {augment!r}.")
    layers = _flat(augment)
    if layers is None:
        return lambda images, seed: tf.cast(augment(images, seed), tf.float32)

    def transform(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for number, layer in enumerate(layers):
            images = _call(layer, images, _BatchSeed(seed, number))
        return tf.cast(images, tf.float32)

    return transform


def _flat(augment: Any) -> list[Any] | None:
    """Return the layers of a (nested) Sequential in order; None for a plain function."""
    if isinstance(augment, keras.Sequential):
        return [inner for layer in augment.layers for inner in _flat(layer) or ()]
    return [augment] if isinstance(augment, keras.layers.Layer) else None


def _call(layer: Any, images: tf.Tensor, seed: _BatchSeed) -> tf.Tensor:
    if not hasattr(layer, "get_random_transformation"):
        return layer(images, training=True) if takes_training(layer) else layer(images)
    transformation = layer.get_random_transformation(images, training=True, seed=seed)
    return layer.transform_images(images, transformation, training=True)


class _BatchSeed(SeedGenerator):
    """Stands where a preprocessing layer expects its own seed generator; draws from the batch's seed instead."""

    def __init__(self, seed: tf.Tensor, layer_number: int) -> None:
        self._seed, self._layer, self._drawn = seed, layer_number, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(
            tf.random.experimental.stateless_fold_in(self._seed, self._layer), self._drawn
        )

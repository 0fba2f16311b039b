"""Freezing batch normalisation, and thawing a backbone step by step."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from tf_detreg import checks
from tf_detreg._compat import inner_layers, owns_weights


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers that own weights themselves, from input to output, each once."""
    yield from {id(layer): layer for layer in _walk(model)}.values()


def _walk(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    if owns_weights(layer):
        yield layer
    for inner in inner_layers(layer):
        yield from _walk(inner)


def freeze_batch_norm(model: keras.Model) -> int:
    """Make every batch normalisation use its stored statistics, also in training; return how many there are.

    Freeze before `compile`: Keras fixes what trains there.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.freeze_batch_norm(backbones.small_cnn(image_size=16, width=8))
    6
    """
    found = [layer for layer in leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in found:
        layer.trainable = False
    return len(found)


def unfreeze(model: keras.Model, share: float, keep_batch_norm: bool = True) -> int:
    """Make the last `share` of the layers that have weights trainable, the others not; compile again afterwards.

    Gradual unfreezing calls it with a growing share: 0 while the head settles, then 0.3, then 1.

    Args:
        model: the backbone.
        share: 0 (all frozen) to 1 (all trainable), counted in layers from the output.
        keep_batch_norm: leave batch normalisation frozen. Default True.

    Returns:
        How many layers are trainable now.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.unfreeze(backbones.small_cnn(image_size=16, width=8), share=0.5)
    3
    """
    share = checks.within("share", share, 0, 1)
    layers = list(leaf_layers(model))
    model.trainable = True
    first = round(len(layers) * (1 - share))
    for number, layer in enumerate(layers):
        frozen_norm = keep_batch_norm and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= first and not frozen_norm
    return sum(layer.trainable for layer in layers)

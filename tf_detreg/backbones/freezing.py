"""Freezing batch normalization or the lower blocks, and thawing a backbone step by step."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import keras

from tf_detreg import checks
from tf_detreg._compat import inner_layers, own_trainable_variables, owns_weights

# Layers that `freeze_until` froze: no later stage of training thaws them. Nothing is kept alive by it.
_FOR_GOOD: weakref.WeakSet[keras.layers.Layer] = weakref.WeakSet()


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers that own weights themselves, from input to output, each once."""
    yield from {id(layer): layer for layer in _walk(model)}.values()


def _walk(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    if owns_weights(layer):
        yield layer
    for inner in inner_layers(layer):
        yield from _walk(inner)


def freeze_batch_norm(model: keras.Model) -> int:
    """Make every batch normalization use its stored statistics, also in training; return how many there are.

    Freeze before `compile`: Keras fixes what trains there.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.freeze_batch_norm(backbones.small_cnn(image_size=16, width=8))
    7
    """
    found = [layer for layer in leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in found:
        layer.trainable = False
    return len(found)


def freeze_until(model: keras.Model, block: str | int) -> int:
    """Freeze all blocks before one, for good: `unfreeze` leaves them frozen; return how many layers are frozen by it.

    Args:
        model: The backbone.
        block: The lowest block that trains, by its name in `backbones.blocks`, or how many blocks from the input are
            frozen.

    Raises:
        ValueError: If there is no such block, or nothing would be left to train.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.freeze_until(backbones.small_cnn(image_size=16, width=8), "block2")
    4
    """
    from tf_detreg.backbones.blocks import blocks

    found = blocks(model)
    names = list(found)
    if isinstance(block, int) and not isinstance(block, bool):
        if not 0 <= block < len(names):
            raise checks.invalid(
                "freeze_until",
                f"leave one of the {len(names)} blocks to train, so be 0 to {len(names) - 1}",
                checks.shown(block),
                "`trainable=False` freezes all of a backbone.",
            )
    elif block not in names:
        raise checks.invalid(
            "freeze_until",
            "be a block's name or a number of blocks",
            checks.shown(block),
            f"Blocks: {', '.join(names)}.",
        )
    count = block if isinstance(block, int) else names.index(block)
    frozen = [layer for name in names[:count] for layer in found[name]]
    for layer in frozen:
        set_trainable(layer, False)
        _FOR_GOOD.add(layer)
    return len(frozen)


def set_trainable(layer: keras.layers.Layer, trains: bool) -> None:
    """Freeze or thaw the weights that a layer owns itself; those of the layers inside it stay as they are."""
    if any(owns_weights(inner) for inner in inner_layers(layer, recursive=True)):
        for variable in own_trainable_variables(layer):
            variable.trainable = trains
    else:
        layer.trainable = trains


def is_adapted(layer: keras.layers.Layer) -> bool:
    """Return whether a layer has low-rank factors beside its kernel (`enable_lora`)."""
    return bool(getattr(layer, "lora_enabled", False))


def low_rank_factors(model: keras.Model) -> list[keras.Variable]:
    """Return the low-rank factors of all layers of a model; none without LoRA."""
    adapted = [layer for layer in leaf_layers(model) if is_adapted(layer)]
    return [factor for layer in adapted for factor in (layer.lora_kernel_a, layer.lora_kernel_b)]


def unfreeze(model: keras.Model, share: float, keep_batch_norm: bool = True) -> int:
    """Make the last `share` of the layers that may train trainable, the others not; compile again afterwards.

    Gradual unfreezing calls it with a growing share: 0 while the head settles, then 0.3, then 1. What `freeze_until`
    froze never trains, and of a backbone with LoRA the low-rank factors alone.

    Args:
        model: The backbone.
        share: 0 (all frozen) to 1 (all trainable), counted in layers from the output.
        keep_batch_norm: Leave batch normalization frozen. Default True.

    Returns:
        How many layers are trainable now.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.unfreeze(backbones.small_cnn(image_size=16, width=8), share=0.5)
    3
    """
    share = checks.within("share", share, 0, 1)
    adapted = bool(low_rank_factors(model))
    everything = list(leaf_layers(model))
    layers = [layer for layer in everything if layer not in _FOR_GOOD and (is_adapted(layer) or not adapted)]
    first = round(len(layers) * (1 - share))
    thawed = {
        id(layer)
        for layer in layers[first:]
        if not (keep_batch_norm and isinstance(layer, keras.layers.BatchNormalization))
    }
    model.trainable = True
    for layer in everything:
        set_trainable(layer, id(layer) in thawed)
    if adapted:
        freeze_base(model)
    return len(thawed)


def freeze_base(model: keras.Model) -> None:
    """Freeze every weight of a model with LoRA but the low-rank factors; those stay as they are."""
    factors = {id(factor) for factor in low_rank_factors(model)}
    for variable in model.variables:
        if id(variable) not in factors:
            variable.trainable = False

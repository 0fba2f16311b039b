"""Low-rank adapters (LoRA): small factors beside frozen kernels, merged into them for inference."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tf_detreg import archives, checks
from tf_detreg.backbones.freezing import (
    _FOR_GOOD,
    freeze_base,
    is_adapted,
    leaf_layers,
    low_rank_factors,
    set_trainable,
)
from tf_detreg.files import replacing

_ABOUT, _FORMAT = "about", 1


def enable_lora(model: keras.Model, rank: int) -> int:
    """Freeze a backbone and put trainable low-rank factors beside the kernels of its dense layers.

        kernel + A·B,    A (inputs, rank),  B (rank, units), B = 0 at first

    These are Keras' own factors (`enable_lora` of `Dense` and `EinsumDense`). Layers that `freeze_until` froze get
    none. All else of the backbone, batch normalization included, stays as it is. Call it before `compile`.

    Args:
        model: The backbone, built.
        rank: 1 or more; 4 to 16 are usual.

    Returns:
        How many layers have factors now.

    Raises:
        ValueError: If the rank is no such number, the model has no dense layer, or has factors already.

    Example:
    >>> import keras
    >>> from tf_detreg import backbones
    >>> net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)])
    >>> backbones.enable_lora(net, rank=2), [tuple(weight.shape) for weight in net.trainable_weights]
    (2, [(8, 2), (2, 16), (16, 2), (2, 4)])

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    """
    rank = checks.integer("lora_rank", rank, 1)
    layers = list(leaf_layers(model))
    if any(is_adapted(layer) for layer in layers):
        raise checks.invalid(
            "lora_rank", "be None for a backbone that has low-rank factors already", checks.shown(rank)
        )
    dense = [
        layer
        for layer in layers
        if isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense) and layer not in _FOR_GOOD
    ]
    if not dense:
        raise ValueError(
            f"`lora_rank` needs a backbone with dense layers, as transformers have; {model.name} has none that may "
            "train. Leave it out; `freeze_until` tunes the upper blocks of a convolutional net."
        )
    for layer in layers:
        set_trainable(layer, False)
    for layer in dense:
        layer.trainable = True
        layer.enable_lora(rank)
    freeze_base(model)
    return len(dense)


def has_lora(model: keras.Model) -> bool:
    """Return whether any layer of a model has low-rank factors.

    Example:
    >>> from tf_detreg import backbones
    >>> backbones.has_lora(backbones.small_cnn(image_size=16, width=4))
    False
    """
    return any(is_adapted(layer) for layer in leaf_layers(model))


def merge_lora(model: keras.Model) -> keras.Model:
    """Return a model without low-rank factors that computes the same: `A·B` is added to the kernels of a copy.

    Args:
        model: Any Keras model; one without factors is returned as it is.

    Example:
    >>> import keras
    >>> from tf_detreg import backbones
    >>> net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> count = backbones.enable_lora(net, rank=2)
    >>> len(net.weights), len(backbones.merge_lora(net).weights)
    (4, 2)
    """
    if not has_lora(model):
        return model
    with _untold(model):
        merged = type(model).from_config(model.get_config())
    for old, new in zip(leaf_layers(model), leaf_layers(merged), strict=True):
        weights: dict[str, object] = {}
        old.save_own_variables(weights)
        new.load_own_variables(weights)
    return merged


def save_adapter(embedder: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write what fine-tuning with LoRA changed: the low-rank factors, and all other weights that train, as a head's.

    Args:
        embedder: A model whose backbone has low-rank factors.
        path: An `.npz` file, a few megabytes beside a backbone of hundreds. `load_adapter` reads it.

    Raises:
        ValueError: If the model has no low-rank factors.
    """
    if not has_lora(embedder):
        raise ValueError("`embedder` has no low-rank factors: save it as a whole, with embedder.save(path).")
    arrays: dict[str, Any] = {name: variable.numpy() for name, variable in _adapter(embedder).items()}
    arrays[_ABOUT] = np.array(json.dumps({"format": _FORMAT, "rank": low_rank_factors(embedder)[0].shape[-1]}))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_adapter(embedder: keras.Model, path: str | os.PathLike[str]) -> None:
    """Put the weights of an adapter file into a model of the same making.

    Args:
        embedder: Built as the one that the file was written of: the same pretrained backbone, rank and head, as
            `training.assemble(run.config).embedder` makes it.
        path: Of `save_adapter`; a run with LoRA keeps its best epoch's as `adapter.npz`.

    Raises:
        ValueError: If the file is damaged, or belongs to another model; the model is then unchanged.
    """
    fault = archives.fault(path, [f"{_ABOUT}.npy"])
    if fault is not None:
        raise checks.invalid("path", "be a whole adapter file", f"{os.fspath(path)!r}, which is damaged ({fault})")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != _ABOUT}
    adapter = _adapter(embedder)
    if adapter.keys() != arrays.keys() or any(tuple(v.shape) != arrays[n].shape for n, v in adapter.items()):
        raise checks.invalid(
            "path",
            f"be the adapter file of this model, which trains {len(adapter)} arrays",
            f"{os.fspath(path)!r}, which was written for another backbone, rank or head",
        )
    for name, variable in adapter.items():
        variable.assign(arrays[name])


def _adapter(embedder: keras.Model) -> dict[str, keras.Variable]:
    """Return what an adapter file holds: the factors, also while they are frozen, and the weights that train."""
    factors = {id(factor) for factor in low_rank_factors(embedder)}
    return {
        f"{position:05d}/{variable.name}": variable
        for position, variable in enumerate(embedder.variables)
        if id(variable) in factors or variable.trainable
    }


@contextlib.contextmanager
def _untold(model: keras.Model) -> Iterator[None]:
    """Leave the rank out of the layers' configurations while the block runs."""
    ranks = [(layer, layer.lora_rank) for layer in leaf_layers(model) if is_adapted(layer)]
    for layer, _ in ranks:
        layer.lora_rank = None
    try:
        yield
    finally:
        for layer, rank in ranks:
            layer.lora_rank = rank

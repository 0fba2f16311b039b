"""Which layers are heads and which own proxies: what an optimizer's groups go by, whatever the layers are called."""

import weakref
from collections.abc import Iterable, Iterator

import keras

# Layers enter here when they are made, so that an optimizer of a plain Keras model, which is told its variables and not
# its layers, knows whose they are. Nothing is kept alive by it.
_LAYERS: weakref.WeakSet[keras.layers.Layer] = weakref.WeakSet()


def register(layer: keras.layers.Layer) -> None:
    """Note a head, or a loss that owns weights. Their base classes call it."""
    _LAYERS.add(layer)


def groups_of(layers: Iterable[keras.layers.Layer] | None = None) -> dict[int, str]:
    """Return the group of the weights of layers, by the variables' `id`.

    Args:
        layers: Heads and losses. Default: all that are alive.

    Returns:
        `"proxies"` for a loss layer's proxies and `"head"` for all other weights.
    """
    layers = list(_LAYERS if layers is None else layers)
    found = {id(variable): "head" for layer in layers for variable in layer.variables}
    return found | {id(proxies): "proxies" for layer in layers for proxies in _proxies(layer)}


def _proxies(layer: keras.layers.Layer) -> Iterator[keras.Variable]:
    # A cross-batch memory holds another loss.
    for owner in (layer, getattr(layer, "loss", None)):
        proxies = getattr(owner, "proxies", None)
        if isinstance(proxies, keras.Variable):
            yield proxies

"""The blocks of a backbone, by the names of its weights: what layer-wise rates and freezing go by."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras

from tf_detreg.backbones.freezing import leaf_layers

STEM, TOP = "stem", "top"
# "block2b", "conv2_block1", "stage_0_block_3", "transformer_block_1", "layers_0": all that comes after names a part of
# the block. A net with stages alone has blocks of a stage each.
_BLOCK = re.compile(
    r"(?P<block>.*?(?:(?:stage|stack|group|conv)_?\d+_)?"
    r"(?:blocks?|layers?|cell|unit|expanded_conv|conv_dw|conv_pw)_?\d+[a-z]?)(?=_|$)"
)
_STAGE = re.compile(r"(?P<block>.*?(?:stages?|stacks?|group)_?\d+)(?=_|$)")
# A model without numbered blocks is divided into as many parts; a deeper one than the most shares rates.
_PARTS, _MOST = 12, 24


def blocks(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Return a backbone's blocks from input to output, by name, each with its layers that own weights.

    A block is what shares a number in the layers' names (`block2b`, `transformer_block_3`). What comes before the first
    is "stem", what comes after the last "top". A model without such names is divided into twelve parts.

    Args:
        model: The backbone.

    Returns:
        Name to layers, in order.

    Example:
    >>> from tf_detreg import backbones
    >>> list(backbones.blocks(backbones.small_cnn(image_size=16, width=4)))
    ['block1', 'block2', 'block3', 'top']
    """
    layers = list(leaf_layers(model))
    found: dict[str, list[keras.layers.Layer]] = {}
    # A layer's own weights come first in its list.
    for name, layer in zip(block_names([layer.variables[0].path for layer in layers]), layers, strict=True):
        found.setdefault(name, []).append(layer)
    return found


def block_names(paths: Sequence[str]) -> list[str]:
    """Return the block of each weight.

    Args:
        paths: Of the weights (`keras.Variable.path`), from input to output.

    Example:
    >>> block_names(["stem_conv/kernel", "block1a_conv/kernel", "block1b_conv/kernel", "top_conv/kernel"])
    ['stem', 'block1a', 'block1b', 'top']
    """
    owners = [path.rpartition("/")[0] for path in paths]
    numbered = [_numbered(owner) for owner in owners]
    if len({block for block in numbered if block}) < 2:
        order = list(dict.fromkeys(owners))
        return [f"part{_PARTS * order.index(owner) // len(order) + 1}" for owner in owners]
    last = max(position for position, block in enumerate(numbered) if block)
    names, now = [], STEM
    for position, block in enumerate(numbered):
        now = block or (TOP if position > last else now)
        names.append(now)
    return names


def layer_factors(paths: Sequence[str], decay: float) -> list[float]:
    """Return what the learning rate of each weight is multiplied by: `decay^n`, n blocks below the topmost.

    Of more than 24 blocks, neighbors share a rate.

    Args:
        paths: Of the weights (`keras.Variable.path`), from input to output.
        decay: Factor from one block to the one below it.

    Example:
    >>> layer_factors(["stem/kernel", "block1/kernel", "block2/kernel"], 0.5)
    [0.25, 0.5, 1.0]

    Reference:
        Clark et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022 (0.65 to 0.75 for image transformers).
    """
    names = block_names(paths)
    order = list(dict.fromkeys(names))
    numbers = {name: number * _MOST // max(len(order), _MOST) for number, name in enumerate(order)}
    top = max(numbers.values(), default=0)
    return [decay ** (top - numbers[name]) for name in names]


def _numbered(owner: str) -> str | None:
    """Return the name of the block that a layer's path tells, if any: of the outermost layer that is numbered."""
    parts = owner.split("/")
    for position, part in enumerate(parts):
        found = _BLOCK.match(part) or _STAGE.match(part)
        if found:
            return "/".join([*parts[:position], found["block"]])
    return None

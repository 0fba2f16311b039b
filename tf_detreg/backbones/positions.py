"""A vision transformer at another image size than it was trained at: its position embeddings, interpolated."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.backbones.families import FAMILIES, made_for, patch

Grid = tuple[int, int]


def interpolate(positions: np.ndarray, prefix: int, old: Grid, new: Grid, antialias: bool = True) -> np.ndarray:
    """Return position embeddings for another grid of patches, by bicubic interpolation over height and width.

    Args:
        positions: (…, prefix + old height · old width, C), row by row.
        prefix: Class and register tokens at the front, which have no place in the image and stay as they are.
        old: Height and width of the grid that they are for, in patches.
        new: The wanted one.
        antialias: Smooth before a grid is made smaller. Default True.

    Returns:
        (…, prefix + new height · new width, C), float32.

    Example:
    >>> import numpy as np
    >>> interpolate(np.zeros((1 + 4 * 4, 8)), prefix=1, old=(4, 4), new=(6, 3)).shape
    (19, 8)
    """
    positions = np.asarray(positions, np.float32)
    front, grid = positions[..., :prefix, :], positions[..., prefix:, :]
    grid = grid.reshape(1, *old, positions.shape[-1])
    moved = tf.image.resize(grid, new, method="bicubic", antialias=antialias).numpy()
    return np.concatenate([front, moved.reshape(*front.shape[:-2], -1, positions.shape[-1])], axis=-2)


def at_size(body: keras.Model, size: tuple[int, int]) -> keras.Model:
    """Return a model of keras-hub with its weights, for images of another size.

    A model that takes any size, or takes this one, comes back as it is. Of DINOv2, which trains position embeddings of
    the image's size and stores others, those stored become of that size too, so that nothing is lost in a file.

    Args:
        body: The model, one of `families.FAMILIES`.
        size: Height and width of the images, allowed by `families.check_size`.

    Raises:
        ValueError: If weights other than position embeddings depend on the size.
    """
    config = body.get_config()
    stored = config.get("position_embedding_shape")
    old = made_for(config)
    if old is None or (old == size and (stored is None or tuple(stored[:2]) == size)):
        return body
    changes: dict[str, Any] = {"image_shape": (*size, 3)}
    if stored is not None:
        old, changes["position_embedding_shape"] = (stored[0], stored[1]), (*size, 3)
    moved = type(body).from_config({**config, **changes})
    side = patch(config) or (1, 1)
    grids = [(height // side[0], width // side[1]) for height, width in (old, size)]
    # Only the class tokens have position embeddings, the registers none.
    prefix = FAMILIES[type(body).__name__].prefix({**config, "num_register_tokens": 0})
    antialias = config.get("antialias_in_interpolation", True)
    for source, target in zip(body.weights, moved.weights, strict=True):
        if source.name == "interpolated_position_embeddings":
            continue
        if source.name == "position_ids":
            target.assign(np.arange(target.shape[-1])[None])
        elif _holds_positions(source):
            target.assign(interpolate(source.numpy(), prefix, grids[0], grids[1], antialias))
        elif source.shape == target.shape:
            target.assign(source)
        else:
            allowed = f"be {old[0]} × {old[1]} for {body.name}, whose weight {source.path!r} depends on it"
            raise checks.invalid("image_size", allowed, f"{size[0]} × {size[1]}")
    share_positions(moved)
    return moved


def _holds_positions(weight: keras.Variable) -> bool:
    """Return whether a weight is called position_embedding(s), or belongs to an `Embedding` of that name."""
    return any(part.startswith("position_embedding") for part in weight.path.split("/")[-2:])


def share_positions(body: keras.Model) -> None:
    """Give DINOv2 the position embeddings that it stores to compute with, where both are of one size."""
    pair = _both_positions(body)
    if pair is not None:
        pair[0].assign(pair[1])


def store_positions(body: keras.Model) -> None:
    """Store the position embeddings that DINOv2 computes with, where both are of one size.

    keras-hub compares the two by the sum of their differences when it saves, so that trained ones can get lost.
    """
    pair = _both_positions(body)
    if pair is not None:
        pair[1].assign(pair[0])


def _both_positions(body: keras.Model) -> tuple[keras.Variable, keras.Variable] | None:
    """Return DINOv2's position embeddings, those it computes with and those it stores; None where the sizes differ."""
    layer: Any = getattr(body, "embeddings", None)
    if not hasattr(layer, "interpolated_position_embeddings"):
        return None
    used, stored = layer.interpolated_position_embeddings, layer.position_embeddings
    return (used, stored) if used.shape == stored.shape else None

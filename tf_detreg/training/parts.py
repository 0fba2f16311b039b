"""The parts of a `MetricModel`: an embedder taken apart, and whether all are of the right kind."""

from collections.abc import Sequence
from typing import Any

import keras

from tf_detreg import checks
from tf_detreg._compat import last_layer
from tf_detreg.regularizers.base import Regularizer

HEAD_METHODS = ("project", "flow", "regularity", "normalize")


def split_embedder(embedder: keras.Model) -> tuple[keras.Model, keras.layers.Layer]:
    """Take a Sequential or functional embedder apart: the model up to its head, and the head.

    Args:
        embedder: A built model whose last layer is a head.

    Returns:
        A model images → features on the same layers, and the head.

    Raises:
        ValueError: If it is not such a model.
    """
    checks.instance("embedder", embedder, keras.Model, "a Sequential or functional model that ends in a head")
    if not isinstance(embedder, keras.Sequential) and not getattr(embedder, "inputs", None):
        raise checks.invalid(
            "embedder",
            "be a Sequential or functional model, which shows where its head begins",
            f"the subclassed model {embedder!r}",
            "Build it as keras.Model(images, head(features)).",
        )
    if not embedder.built or not getattr(embedder, "inputs", None):
        raise checks.invalid(
            "embedder",
            "be built",
            "one that is not",
            "Start it with keras.Input((height, width, 3)), or call it once.",
        )
    if len(embedder.inputs) != 1 or len(embedder.outputs) != 1:
        raise ValueError(
            f"`embedder` must have one input and one output; received {len(embedder.inputs)} inputs and "
            f"{len(embedder.outputs)} outputs. Give keras.Model(images, embeddings) on the same layers; a model with "
            "more trains with a pair loss in plain Keras."
        )
    # The head as this model calls it: a layer may stand in several models.
    head, features = last_layer(embedder)
    if not _is_head(getattr(head, "main", head)):
        raise ValueError(
            f"`embedder` must end in a head such as heads.RealNVP or heads.Linear; received one that ends in {head!r}."
        )
    return keras.Model(embedder.inputs[0], features, name="backbone_of_" + embedder.name), head


def _is_head(layer: Any) -> bool:
    return all(hasattr(layer, method) for method in HEAD_METHODS)


def check_parts(loss: Any, rival: Any, regularizers: Sequence[Any]) -> None:
    """Name a part of the wrong kind at once, rather than in the middle of the first step."""
    if not isinstance(loss, keras.losses.Loss | keras.layers.Layer):
        raise ValueError(
            "`loss` must be a pair loss such as losses.SupCon(), or a layer with proxies such as "
            f"losses.ProxyAnchor(num_classes); received {loss!r}."
        )
    if rival is not None and not _is_head(rival):
        raise ValueError(f"`rival` must be a head such as heads.RealNVP or heads.Linear; received {rival!r}.")
    if not isinstance(regularizers, Sequence) or not all(isinstance(part, Regularizer) for part in regularizers):
        raise ValueError(f"`regularizers` must be a list of tf_detreg.regularizers objects; received {regularizers!r}.")

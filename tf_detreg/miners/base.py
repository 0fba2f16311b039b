"""What every miner shares."""

from dataclasses import replace
from typing import Any, Self

import tensorflow as tf

from tf_detreg.losses.labels import as_embeddings, check_labels
from tf_detreg.losses.options import described
from tf_detreg.losses.pairs import Mined, Pairs, batch_pairs
from tf_detreg.vectors import unit


class Miner:
    """Chooses which pairs or triplets of a batch count. Losses take it as `miner=`.

    Embeddings are scaled to length 1 and cut off from the gradient: mining is a choice, not a term of the loss.

    Implementing a miner: subclass, write `choose(pairs)`, which returns `MinedPairs` (two boolean masks) or
    `MinedTriplets` (three index vectors), and `get_config`; register it with Keras to save models that use it.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range.
    """

    def __call__(self, labels: Any, embeddings: Any) -> Mined:
        embeddings = as_embeddings(embeddings)
        if embeddings.dtype != tf.float64:
            embeddings = tf.cast(embeddings, tf.float32)
        return self.select(batch_pairs(check_labels(labels, embeddings), embeddings))

    def select(self, pairs: Pairs) -> Mined:
        """Return the choice among pairs that a loss has prepared, within a batch or with a memory."""
        anchors = tf.stop_gradient(unit(pairs.anchors))
        references = anchors if pairs.within else tf.stop_gradient(unit(pairs.references))
        return self.choose(replace(pairs, anchors=anchors, references=references, distance="euclidean"))

    def choose(self, pairs: Pairs) -> Mined:
        """Return the choice, from unit vectors without gradient; `pairs.matrix` are Euclidean distances."""
        raise NotImplementedError(f"{type(self).__name__} must implement choose(pairs).")

    def __repr__(self) -> str:
        return described(self)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return a miner of a configuration."""
        return cls(**config)

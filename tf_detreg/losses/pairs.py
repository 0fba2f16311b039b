"""A batch as a loss or a miner sees it: anchors, what they are compared with, and which pairs count."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import tensorflow as tf

from tf_detreg.losses import distances


class MinedPairs(NamedTuple):
    """Boolean masks `(B, M)`: which positive and which negative pairs (anchor, reference) count."""

    positives: tf.Tensor
    negatives: tf.Tensor


class MinedTriplets(NamedTuple):
    """int32 index vectors of equal length: anchors (rows of the batch), positives and negatives (references)."""

    anchors: tf.Tensor
    positives: tf.Tensor
    negatives: tf.Tensor


Mined = MinedPairs | MinedTriplets
"""What a miner returns: two masks, or three index vectors."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of B anchors with M references. In a plain batch both are the same vectors.

    Args:
        labels: Of the anchors, `(B,)`.
        anchors: `(B, dim)`.
        reference_labels: `(M,)`.
        references: `(M, dim)`.
        positives: Boolean `(B, M)`: same label, and not the sample itself.
        negatives: Boolean `(B, M)`: another label.
        distance: Name of the distance that `matrix` measures, if the loss uses one.
        within: True if anchors and references are the same batch.
    """

    labels: tf.Tensor
    anchors: tf.Tensor
    reference_labels: tf.Tensor
    references: tf.Tensor
    positives: tf.Tensor
    negatives: tf.Tensor
    distance: str | None = None
    within: bool = True

    @property
    def similarities(self) -> tf.Tensor:
        """Return inner products, `(B, M)`."""
        return distances.similarities(self.anchors, self.references)

    @property
    def matrix(self) -> tf.Tensor:
        """Return distances of anchors and references, `(B, M)`."""
        return distances.distances(self.anchors, self.references, self.distance)

    @property
    def reference_matrix(self) -> tf.Tensor:
        """Return distances among the references, `(M, M)`."""
        return distances.distances(self.references, self.references, self.distance)

    def restricted(self, mined: MinedPairs) -> "Pairs":
        """Return the same batch with only those pairs that a miner kept."""
        return replace(self, positives=self.positives & mined.positives, negatives=self.negatives & mined.negatives)


def batch_pairs(labels: tf.Tensor, embeddings: tf.Tensor, distance: str | None = None) -> Pairs:
    """Return all pairs within a batch, without each sample's pair with itself."""
    same = labels[:, None] == labels[None, :]
    return Pairs(
        labels=labels,
        anchors=embeddings,
        reference_labels=labels,
        references=embeddings,
        positives=same & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool),
        negatives=~same,
        distance=distance,
    )


def memory_pairs(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    reference_labels: tf.Tensor,
    references: tf.Tensor,
    valid: tf.Tensor | None = None,
    distance: str | None = None,
) -> Pairs:
    """Return all pairs of a batch with other vectors; `valid`, a boolean `(B, M)` or `(1, M)`, says which count."""
    same = labels[:, None] == reference_labels[None, :]
    valid = tf.ones_like(same) if valid is None else valid
    return Pairs(
        labels=labels,
        anchors=embeddings,
        reference_labels=reference_labels,
        references=references,
        positives=same & valid,
        negatives=~same & valid,
        distance=distance,
        within=False,
    )


def as_masks(mined: tuple[tf.Tensor, ...], shape: tf.Tensor) -> MinedPairs:
    """Return what a miner chose as masks of a given shape; triplets count with their two pairs."""
    if len(mined) == 2:
        return MinedPairs(*mined)
    if len(mined) != 3:
        raise ValueError(
            "`miner` must return two boolean masks (positives, negatives) or three index vectors (anchors, positives, "
            f"negatives); received {len(mined)} items."
        )
    anchors, positives, negatives = mined
    return MinedPairs(
        occurrences(anchors, positives, shape, tf.int32) > 0, occurrences(anchors, negatives, shape, tf.int32) > 0
    )


def occurrences(rows: tf.Tensor, columns: tf.Tensor, shape: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return how often each pair (row, column) is listed, in a matrix of a given shape."""
    places = tf.stack([tf.cast(rows, tf.int32), tf.cast(columns, tf.int32)], axis=1)
    return tf.scatter_nd(places, tf.ones(tf.shape(places)[:1], dtype), shape)

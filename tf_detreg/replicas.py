"""The global batch: what every replica of a distributed training step must see for its loss to be the right one.

A metric loss compares the samples of a batch with each other. Taken on each replica's shard alone it is another loss
(16.6 instead of 18.5 in one measurement), so embeddings and labels are gathered first, differentiably.
"""

from typing import Any

import tensorflow as tf


def replica_count() -> int:
    """Return how many replicas run this training step together; 1 outside of a distribution strategy."""
    return 1 if tf.distribute.in_cross_replica_context() else tf.distribute.get_strategy().num_replicas_in_sync


class GlobalBatch:
    """Where this replica's rows stand in the batch of all replicas, and how to gather the rest.

    Replicas may hold different numbers of rows, also none. With one replica everything is the identity.

    Rows are gathered by a sum: each replica puts its own into a block of zeros, and the blocks are added up. The sum
    has a gradient on every kind of strategy and copes with uneven shards, which `all_gather` between machines does not.

    Args:
        rows: Number of rows that this replica holds.
    """

    def __init__(self, rows: tf.Tensor) -> None:
        self.replicas = replica_count()
        self.local = rows
        if self.replicas == 1:
            self.total, self.offset = rows, 0
            return
        self._context = tf.distribute.get_replica_context()
        mine = tf.one_hot(self._context.replica_id_in_sync_group, self.replicas, dtype=tf.int32)
        sizes = self._sum(mine * rows)
        self.total = tf.reduce_sum(sizes)
        self.offset = tf.reduce_sum(tf.where(tf.cumsum(mine) == 0, sizes, 0))

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """Return the rows of all replicas, in the order of the replicas; `(local, …)` → `(total, …)`."""
        if self.replicas == 1:
            return values
        behind = self.total - self.offset - self.local
        padding = [[self.offset, behind]] + [[0, 0]] * (values.shape.rank - 1)
        return self._sum(tf.pad(values, padding))

    def share(self, value: tf.Tensor) -> tf.Tensor:
        """Return a value that all replicas have → this replica's part of it: the parts add up to the value."""
        return value / tf.cast(self.replicas, value.dtype)

    def local_share(self, mean: tf.Tensor) -> tf.Tensor:
        """Return a mean over this replica's rows → its part of the mean over all rows."""
        if self.replicas == 1:
            return mean
        return mean * tf.cast(self.local, mean.dtype) / tf.cast(self.total, mean.dtype)

    def agree_on_overflow(self, gradients: list[Any]) -> list[Any]:
        """Return the gradients of a scaled loss, not finite on any replica if they are not on one.

        Half precision skips a step whose gradients overflowed. Keras asks the first replica alone, whose gradients say
        nothing of an overflow in the rows of another.
        """
        if self.replicas == 1:
            return gradients
        first = next(at for at, gradient in enumerate(gradients) if gradient is not None)
        finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients if gradient is not None]
        overflows = self._sum(tf.cast(~tf.reduce_all(finite), tf.float32))
        spoilt = tf.where(overflows > 0, float("nan"), 0.0)
        return [
            gradient + tf.cast(spoilt, gradient.dtype) if at == first else gradient
            for at, gradient in enumerate(gradients)
        ]

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        return self._context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def global_rows(rows: tf.Tensor) -> tf.Tensor:
    """Return the `(B, d)` rows of every replica, in the order of the replicas; with one replica `rows` itself."""
    return GlobalBatch(tf.shape(rows)[0]).gather(rows)

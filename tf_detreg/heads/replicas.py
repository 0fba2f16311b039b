"""The rows of all replicas of a distributed training step."""

import tensorflow as tf


def global_rows(rows: tf.Tensor) -> tf.Tensor:
    """Return the `(B, d)` rows of every replica, in the order of the replicas; outside of a distributed step `rows`.

    Replicas may hold different numbers of rows. Each puts its own into a block of zeros, and the blocks are added up.
    """
    strategy = tf.distribute.get_strategy()
    if tf.distribute.in_cross_replica_context() or strategy.num_replicas_in_sync == 1:
        return rows
    context = tf.distribute.get_replica_context()
    mine = tf.one_hot(context.replica_id_in_sync_group, strategy.num_replicas_in_sync, dtype=tf.int32)
    counts = context.all_reduce(tf.distribute.ReduceOp.SUM, mine * tf.shape(rows)[0])
    before = tf.reduce_sum(tf.where(tf.cumsum(mine) == 0, counts, 0))
    after = tf.reduce_sum(counts) - before - tf.shape(rows)[0]
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.pad(rows, [[before, after], [0, 0]]))

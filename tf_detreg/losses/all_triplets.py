"""A sum over all triplets of a batch in blocks of bounded memory, with an exact gradient."""

from collections.abc import Callable

import tensorflow as tf

from tf_detreg.losses.pairs import Pairs

BLOCK = 2**21
"""Triplets looked at together: 8 MB for each float32 tensor."""


def sum_triplets(pairs: Pairs, matrix: tf.Tensor, among: tf.Tensor, term: Callable) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums a function of each triplet's three distances.

    Positive pairs are listed and taken in blocks, each against all references at once. The backward pass goes through
    the blocks again instead of keeping them.

    Args:
        pairs: masks of positives and negatives.
        matrix: distances of anchors and references, `(B, M)`.
        among: distances among the references, `(M, M)`.
        term: `(d_ap (n, 1), d_an (n, M), d_pn (n, M)) -> (losses (n, M), counted: boolean (n, M))`.

    Returns:
        The sum for each anchor `(B,)`, and the number of counted triplets.
    """
    listed = tf.cast(tf.where(pairs.positives), tf.int32)
    total = tf.shape(listed)[0]
    size = tf.maximum(BLOCK // tf.maximum(tf.shape(matrix)[1], 1), 1)
    batch = tf.shape(matrix)[0]

    def block(start, matrix, among):
        # Not a slice: XLA would compile that, and silently take rows beyond the end for triplets.
        chosen = tf.gather(listed, start + tf.range(tf.minimum(size, total - start)))
        anchors, positives = chosen[:, 0], chosen[:, 1]
        losses, counted = term(
            tf.gather_nd(matrix, chosen)[:, None], tf.gather(matrix, anchors), tf.gather(among, positives)
        )
        valid = tf.gather(pairs.negatives, anchors)
        sums = tf.math.unsorted_segment_sum(tf.reduce_sum(tf.where(valid, losses, 0), axis=1), anchors, batch)
        return sums, tf.reduce_sum(tf.cast(valid & counted, matrix.dtype))

    @tf.custom_gradient
    def summed(matrix, among):
        def forward(start, sums, count):
            more_sums, more_count = block(start, matrix, among)
            return start + size, sums + more_sums, count + more_count

        zeros = tf.zeros([batch], matrix.dtype)
        results = tf.while_loop(lambda start, *_: start < total, forward, (0, zeros, tf.zeros([], matrix.dtype)))

        def gradient(upstream, _):
            def backward(start, to_matrix, to_among):
                with tf.GradientTape() as tape:
                    tape.watch([matrix, among])
                    weighted = tf.reduce_sum(block(start, matrix, among)[0] * upstream)
                more = tape.gradient(weighted, [matrix, among], unconnected_gradients="zero")
                return start + size, to_matrix + more[0], to_among + more[1]

            start = (0, tf.zeros_like(matrix), tf.zeros_like(among))
            return tf.while_loop(lambda start, *_: start < total, backward, start)[1:]

        return results[1:], gradient

    return summed(matrix, among)

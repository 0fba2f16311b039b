"""The direction cosine of proxy losses: does a push away from a foreign proxy also push away from the own one?"""

import tensorflow as tf

from tf_detreg.vectors import squared_chords


def direction_cosines(similarities: tf.Tensor, own: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
    """Return `r_ij = cos(q_j - z_i, q_y - z_i)` of each sample i and proxy j, `(B, P)`; `q_y` is i's nearest own proxy.

    All vectors have length 1, so that `(q_j - z_i)·(q_y - z_i) = q_j·q_y - s_ij - s_iy + 1` and
    `|q_j - z_i|² = 2 - 2 s_ij`: one more matrix product, and no `(B, P, dim)` tensor. At coincident points r is 0.

    Args:
        similarities: `z·qᵀ`, `(B, P)`.
        own: Index pairs of each sample's own proxies, `(B, m, 2)`.
        q: Unit proxies `(P, dim)`.

    Reference: Mohan et al., "Moving in the Right Direction: A Regularization for Deep Metric Learning", CVPR 2020.
    """
    candidates = tf.gather_nd(similarities, own)
    nearest = tf.argmax(candidates, axis=1, output_type=tf.int32)
    mine = tf.gather(candidates, nearest, batch_dims=1)[:, None]
    targets = tf.gather(q, tf.gather(own[:, :, 1], nearest, batch_dims=1))
    products = tf.matmul(targets, q, transpose_b=True) - similarities - mine + 1
    return products * _inverse_distance(similarities) * _inverse_distance(mine)


def _inverse_distance(similarities: tf.Tensor) -> tf.Tensor:
    return tf.math.rsqrt(squared_chords(similarities))

"""Direction regularization: the cosine between anchor → negative and anchor → positive."""

import tensorflow as tf

from tf_detreg.losses.distances import root, squared_distances
from tf_detreg.losses.pairs import Pairs


def cosine_at_anchor(an: tf.Tensor, ap: tf.Tensor, pn: tf.Tensor) -> tf.Tensor:
    """Return `cos(n - a, p - a)` from the three *squared* distances of a triangle, by the law of cosines.

    0, with gradient 0, where the positive or the negative coincides with the anchor and no direction exists.
    """
    lengths = root(an) * root(ap)
    exists = lengths > 0
    return tf.where(exists, (an + ap - pn) / (2 * tf.where(exists, lengths, 1)), 0)


def hardest_positive_direction(pairs: Pairs, similarities: tf.Tensor) -> tf.Tensor:
    """Return `cos(f_n - f_i, f_p* - f_i)` of each anchor and reference, `(B, M)`; `p*` is the least similar positive.

    0 in the rows of anchors without a positive.
    """
    hardness = tf.stop_gradient(tf.where(pairs.positives, similarities, float("inf")))
    hardest = tf.argmin(hardness, axis=1)
    squares = squared_distances(pairs.anchors, pairs.references)
    among = squares if pairs.within else squared_distances(pairs.references, pairs.references)
    to_positive = tf.gather(squares, hardest, axis=1, batch_dims=1)[:, None]
    cosines = cosine_at_anchor(squares, to_positive, tf.gather(among, hardest))
    return tf.where(tf.reduce_any(pairs.positives, axis=1, keepdims=True), cosines, 0)

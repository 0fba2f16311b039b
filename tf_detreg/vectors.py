"""Vectors of length 1: the one normalization that heads, losses, miners and regularizers share."""

import tensorflow as tf


@tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no stubs
def unit(vectors: tf.Tensor) -> tf.Tensor:
    r"""Scale vectors to length 1 along the last axis, exactly at every scale.

    `u = v / ||v||`,  `∂u/∂v = (I - u uᵀ) / ||v||`

    Each vector is first divided by its largest entry, so that no square underflows or overflows: the result is the same
    for `v` and `c·v`, as far as the entries are normal numbers of the type (above 1.2e-38 in float32). A zero vector
    stays zero, with the gradient of a vector of length 1. A gradient beyond the type's range is held at its largest
    number.

    Args:
        vectors: Floats `(..., dim)`.

    Returns:
        The same shape and type.

    Example:

    >>> unit(tf.constant([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]])).numpy().round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    largest = tf.reduce_max(tf.abs(vectors), axis=-1, keepdims=True)
    divisor = tf.where(largest > 0, largest, 1)
    scaled = vectors / divisor
    # At least 1 where a largest entry is ±1, and 0 for a zero vector.
    inverse = tf.math.rsqrt(tf.maximum(tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True), 1))
    units = scaled * inverse

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        # Half the passes over the vectors that automatic differentiation makes.
        across = upstream - units * tf.reduce_sum(units * upstream, axis=-1, keepdims=True)
        return tf.clip_by_value(across * inverse / divisor, vectors.dtype.min, vectors.dtype.max)

    return units, gradient


SMALLEST_SQUARE = 1e-6
"""Squared distances of unit vectors are held above this where a root, a logarithm or a quotient follows."""


def squared_chords(cosines: tf.Tensor) -> tf.Tensor:
    """Return `||a - b||² = 2 - 2 cos` of unit vectors, held above a floor that keeps gradients finite."""
    return tf.maximum(2 - 2 * cosines, SMALLEST_SQUARE)

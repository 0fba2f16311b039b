"""RegularFace: each center moves away from its nearest neighbor."""

import keras
import tensorflow as tf

from tf_detreg.regularizers.centers import CenterSeparation


@keras.saving.register_keras_serializable("tf_detreg")
class RegularFace(CenterSeparation):
    r"""RegularFace, exclusive regularization.

    `L = mean_i max_{j≠i} c_i·c_j`

    Other code: equal to pytorch-metric-learning's `RegularFaceRegularizer` with one proxy a class.

    The optimum for at most `dim + 1` classes is the regular simplex, `c_i·c_j = -1/(C-1)`.

    Args:
        weight: Factor in the objective. Default 1.0.
        max_rows: Centers drawn per step, if there are more. Default 512.

    Call arguments:
        context: With `proxies (P, dim)`, or else `labels` and `embeddings`, whose class means are taken.

    Example:

    >>> import tensorflow as tf
    >>> from tf_detreg.regularizers import Context
    >>> near, far = tf.constant([[1.0, 0.0], [0.8, 0.6]]), tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    >>> bool(RegularFace().penalty(Context(proxies=far)) < RegularFace().penalty(Context(proxies=near)))
    True

    Reference: Zhao et al., "RegularFace: Deep Face Recognition via Exclusive Regularization", CVPR 2019.
    """

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        nearest = tf.reduce_max(tf.where(pairs, cosines, float("-inf")), axis=1)
        return tf.reduce_mean(tf.boolean_mask(nearest, tf.reduce_any(pairs, axis=1)))

"""The uniform loss: Coulomb repulsion between centers, with an offset that keeps it finite."""

import keras
import tensorflow as tf

from tf_detreg.regularizers.centers import CenterSeparation, mean_over
from tf_detreg.vectors import squared_chords


@keras.saving.register_keras_serializable("tf_detreg")
class UniformLoss(CenterSeparation):
    r"""Uniform loss of UniformFace.

    `L = mean_{i≠j} 1 / (|c_i - c_j| + 1)`

    Other code: the paper updates class centers as running means, as center loss does; here the proxies are centers.

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
    >>> bool(UniformLoss().penalty(Context(proxies=far)) < UniformLoss().penalty(Context(proxies=near)))
    True

    Reference: Duan et al., "UniformFace: Learning Deep Equidistributed Representation for Face Recognition", CVPR 2019.
    """

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        return mean_over(1 / (tf.sqrt(squared_chords(cosines)) + 1), pairs)

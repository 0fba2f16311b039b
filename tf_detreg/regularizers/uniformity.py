"""Uniformity: the logarithm of a Gaussian potential between centers."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.regularizers.centers import CenterSeparation, log_mean_exp
from tf_detreg.vectors import squared_chords


@keras.saving.register_keras_serializable("tf_detreg")
class Uniformity(CenterSeparation):
    r"""Uniformity on the sphere.

    `L = log( mean_{i≠j} e^{-t·|c_i - c_j|²} )`

    Equal to `2t·(LogExpMean(2t) - 1)`, since `|c_i - c_j|² = 2 - 2 c_i·c_j`.

    The optimum for at most `dim + 1` classes is the regular simplex, `c_i·c_j = -1/(C-1)`.

    Args:
        temperature: t. Default 2.0, the paper's.
        weight: Factor in the objective. Default 1.0.
        max_rows: Centers drawn per step, if there are more. Default 512.

    Call arguments:
        context: With `proxies (P, dim)`, or else `labels` and `embeddings`, whose class means are taken.

    Example:

    >>> import tensorflow as tf
    >>> from tf_detreg.regularizers import Context
    >>> near, far = tf.constant([[1.0, 0.0], [0.8, 0.6]]), tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    >>> bool(Uniformity().penalty(Context(proxies=far)) < Uniformity().penalty(Context(proxies=near)))
    True

    Reference: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere", ICML 2020.
    """

    def __init__(
        self,
        temperature: float = 2.0,
        weight: float = 1.0,
        max_rows: int = 512,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, max_rows, name=name, dtype=dtype, trainable=trainable)
        self.temperature = checks.positive("temperature", temperature)

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        return log_mean_exp(-self.temperature * squared_chords(cosines), pairs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}

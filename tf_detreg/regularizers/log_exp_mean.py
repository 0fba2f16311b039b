"""Log-exp mean of the cosines between centers: from their mean to their maximum."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.regularizers.centers import CenterSeparation, log_mean_exp, mean_over


@keras.saving.register_keras_serializable("tf_detreg")
class LogExpMean(CenterSeparation):
    r"""Log-exp mean of cosine similarities.

    `L_t = 1/t · log( mean_{i≠j} e^{t·c_i·c_j} )`

    `t → 0` gives the mean cosine, `t → ∞` the largest one; in between, near neighbors count more the larger t is.

    The optimum for at most `dim + 1` classes is the regular simplex, `c_i·c_j = -1/(C-1)`.

    Args:
        temperature: t; 0 is the mean. Default 1.0.
        weight: Factor in the objective. Default 1.0.
        max_rows: Centers drawn per step, if there are more. Default 512.

    Call arguments:
        context: With `proxies (P, dim)`, or else `labels` and `embeddings`, whose class means are taken.

    Example:

    >>> import tensorflow as tf
    >>> from tf_detreg.regularizers import Context
    >>> near, far = tf.constant([[1.0, 0.0], [0.8, 0.6]]), tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    >>> bool(LogExpMean().penalty(Context(proxies=far)) < LogExpMean().penalty(Context(proxies=near)))
    True

    Reference: "Determinant Regularization for Deep Metric Learning" (ICLR 2023 submission).
    """

    def __init__(
        self,
        temperature: float = 1.0,
        weight: float = 1.0,
        max_rows: int = 512,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, max_rows, name=name, dtype=dtype, trainable=trainable)
        self.temperature = checks.not_negative("temperature", temperature)

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        if not self.temperature:
            return mean_over(cosines, pairs)
        return log_mean_exp(self.temperature * cosines, pairs) / self.temperature

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}

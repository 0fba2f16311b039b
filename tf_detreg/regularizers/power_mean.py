"""Power mean of the distances between centers: every potential energy, and more, on one scale."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.regularizers.centers import CenterSeparation, log_mean_exp, mean_over
from tf_detreg.vectors import squared_chords


@keras.saving.register_keras_serializable("tf_detreg")
class PowerMean(CenterSeparation):
    r"""Power mean of distances, to be maximized.

    `penalty = -M_p`,  `M_p = ( mean_{i≠j} |c_i - c_j|^p )^{1/p}`,  `M_0 = exp( mean log |c_i - c_j| )`

    It generalizes potential energy: `M_{-s} = E_s^{-1/s}` and `M_0 = exp(-E_0)` with the energies of
    `HypersphericalEnergy`, so both have the same optimum. `p = -1` is the harmonic mean (Coulomb), and `p → -∞` tends
    to the smallest distance (Tammes' problem). Computed by logarithms, so that `p = -100` is harmless.

    The optimum for at most `dim + 1` classes is the regular simplex, `c_i·c_j = -1/(C-1)`.

    Args:
        power: p. Default -1.0.
        weight: Factor in the objective. Default 1.0.
        max_rows: Centers drawn per step, if there are more. Default 512.

    Call arguments:
        context: With `proxies (P, dim)`, or else `labels` and `embeddings`, whose class means are taken.

    Example:

    >>> import tensorflow as tf
    >>> from tf_detreg.regularizers import Context
    >>> near, far = tf.constant([[1.0, 0.0], [0.8, 0.6]]), tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    >>> bool(PowerMean().penalty(Context(proxies=far)) < PowerMean().penalty(Context(proxies=near)))
    True

    Reference: "Determinant Regularization for Deep Metric Learning" (ICLR 2023 submission).
    """

    def __init__(
        self,
        power: float = -1.0,
        weight: float = 1.0,
        max_rows: int = 512,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, max_rows, name=name, dtype=dtype, trainable=trainable)
        self.power = checks.number("power", power)

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        log_distances = tf.math.log(squared_chords(cosines)) / 2
        if not self.power:
            return -tf.exp(mean_over(log_distances, pairs))
        return -tf.exp(log_mean_exp(self.power * log_distances, pairs) / self.power)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}

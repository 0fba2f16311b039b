"""Minimum hyperspherical energy: centers repel each other like charges on a sphere."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.regularizers.centers import CenterSeparation, mean_over
from tf_detreg.vectors import squared_chords


@keras.saving.register_keras_serializable("tf_detreg")
class HypersphericalEnergy(CenterSeparation):
    r"""Minimum hyperspherical energy (MHE).

    `E_s = mean_{i≠j} f_s(u_ij)`,  `f_s(u) = u^{-s}` for `s > 0`,  `f_0(u) = log(1/u)`

    with `u_ij = |c_i - c_j|`, or the angle between the centers with `angular=True`. With `half=True` the opposite
    points `-c_j` repel too, so that centers are spread over lines instead of directions.

    Paper settings: the authors' code has weight 1 in hidden layers and 10 in the last one, a tenth of both for angular
    energies with s = 1 or 2.
    Other code: the authors' `s = 0` variant is twice this one, and their angle is divided by π, plus 1e-4; these are
    factors or constants that change no optimum. Their angular `s = 0` has weight 1 and 10, too.

    The optimum for at most `dim + 1` classes is the regular simplex, `c_i·c_j = -1/(C-1)`.

    Args:
        power: s. Default 1.0, the Coulomb energy.
        angular: Whether u is the angle. Default False.
        half: Whether opposite points repel too. Default False.
        weight: Factor in the objective. Default 1.0.
        max_rows: Centers drawn per step, if there are more. Default 512.

    Call arguments:
        context: With `proxies (P, dim)`, or else `labels` and `embeddings`, whose class means are taken.

    Example:

    >>> import tensorflow as tf
    >>> from tf_detreg.regularizers import Context
    >>> near, far = tf.constant([[1.0, 0.0], [0.8, 0.6]]), tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    >>> energy = HypersphericalEnergy(power=2)
    >>> bool(energy.penalty(Context(proxies=far)) < energy.penalty(Context(proxies=near)))
    True

    Reference: Liu et al., "Learning towards Minimum Hyperspherical Energy", NeurIPS 2018.
    """

    def __init__(
        self,
        power: float = 1.0,
        angular: bool = False,
        half: bool = False,
        weight: float = 1.0,
        max_rows: int = 512,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, max_rows, name=name, dtype=dtype, trainable=trainable)
        self.power = checks.not_negative("power", power)
        self.angular = angular
        self.half = half

    def energy(self, cosines: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        energy = mean_over(self.potential(cosines), pairs)
        return (energy + mean_over(self.potential(-cosines), pairs)) / 2 if self.half else energy

    def potential(self, cosines: tf.Tensor) -> tf.Tensor:
        """Return `f_s(u)`, from the logarithm of u."""
        if self.angular:
            log_distances = tf.math.log(tf.acos(tf.clip_by_value(cosines, -1 + 1e-6, 1 - 1e-6)))
        else:
            log_distances = tf.math.log(squared_chords(cosines)) / 2
        return tf.exp(-self.power * log_distances) if self.power else -log_distances

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power, "angular": self.angular, "half": self.half}

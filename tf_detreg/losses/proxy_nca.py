"""ProxyNCA: neighborhood component analysis against proxies instead of samples."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, set_apart
from tf_detreg.losses.proxy_direction import direction_cosines


@keras.saving.register_keras_serializable("tf_detreg")
class ProxyNCA(ProxyLoss):
    r"""ProxyNCA loss, with optional direction regularization.

    `L = mean_i -log( e^{-σ·d²(z_i, q_y)} / Σ_{c≠y} e^{-σ·(d²(z_i, q_c) + γ·r_ic)} )`
    `r_ic = cos(q_c - z_i, q_y - z_i)`

    The sample's own class stays out of the denominator, as in the paper, so the loss can be negative. `σ = scale`,
    `γ = direction`.

    Paper settings: σ = 1, unit embeddings and unit proxies, squared distance.
    Other code: pytorch-metric-learning's `ProxyNCALoss` and the `dichotomies` repository keep the own class in the
    denominator; that is `ProxyNCAPlusPlus` here (temperature 1/σ). Open re-implementations of the direction term use
    plain distances and proxies that are not normalized; here both are as in ProxyNCA itself. See `docs/direction.md`.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; with several, a class is as near as its nearest proxy. Default 1.
        scale: σ. Default 1.0.
        direction: γ, strength of the direction regularization; 0.3 is a common choice. Default 0.0.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = ProxyNCA(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [-0.341, 3.313]

    Reference: Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017; Mohan et al.,
    "Moving in the Right Direction: A Regularization for Deep Metric Learning", CVPR 2020.
    """

    smallest_num_classes = 2

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 1,
        scale: float = 1.0,
        direction: float = 0.0,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        self.scale = checks.positive("scale", scale)
        self.direction = checks.number("direction", direction)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        similarities = tf.matmul(z, q, transpose_b=True)
        own = self.own_proxies(labels)
        mine, others = set_apart(similarities, own)
        distances = 2 - 2 * others
        if self.direction:
            distances += self.direction * direction_cosines(similarities, own, q)
        mine = self.scale * (2 - 2 * tf.reduce_max(mine, axis=1))
        return tf.reduce_mean(mine + tf.reduce_logsumexp(-self.scale * distances, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "direction": self.direction}

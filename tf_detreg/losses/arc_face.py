"""ArcFace: a margin on the angle."""

import math
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, at_label, cross_entropy


@keras.saving.register_keras_serializable("tf_detreg")
class ArcFace(ProxyLoss):
    r"""ArcFace loss (additive angular margin).

    `L = mean_i -log softmax_c( σ·t_ic )[y_i]`,  `t_ic = cos θ_ic` for `c ≠ y_i`,  `t_iy = cos(θ_iy + m)`

    Where `θ_iy > π - m` the target would turn around; there `t_iy = cos θ_iy - m·sin m`, which keeps falling.
    The cosine is held 1e-7 away from ±1, where the angle has an infinite slope.

    Paper settings: σ = 64, m = 0.5 radians.
    Other code: The authors' PyTorch code has no second branch. It computes angles outside of the gradient, so the
    slope is that of the plain softmax at the shifted logits. pytorch-metric-learning states the margin in degrees (28.6
    = 0.499 radians); equal otherwise. Its half precision is known to return NaN; here half-precision embeddings are
    computed in float32.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; with several, a class is as near as its nearest proxy. Default 1.
        scale: σ. Default 64.0.
        margin: m, in radians, below π. Default 0.5.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = ArcFace(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [11.878, 109.446]

    Reference: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 1,
        scale: float = 64.0,
        margin: float = 0.5,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        if not checks.is_finite(margin) or not 0 <= margin < math.pi:
            raise checks.invalid("margin", "be an angle in radians, from 0 to below pi", checks.shown(margin))
        self.scale = checks.positive("scale", scale)
        self.margin = margin

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        cosines = self.class_similarities(z, q)
        where = at_label(labels)
        target = self.widened(tf.gather_nd(cosines, where))
        return cross_entropy(labels, self.scale * tf.tensor_scatter_nd_update(cosines, where, target))

    def widened(self, cosine: tf.Tensor) -> tf.Tensor:
        """Return `cos(θ + m)` from `cos θ`, continued by a falling branch beyond `θ = π - m`."""
        cosine = tf.clip_by_value(cosine, -1 + 1e-7, 1 - 1e-7)
        turned = cosine * math.cos(self.margin) - tf.sqrt(1 - tf.square(cosine)) * math.sin(self.margin)
        return tf.where(cosine > -math.cos(self.margin), turned, cosine - self.margin * math.sin(self.margin))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "margin": self.margin}

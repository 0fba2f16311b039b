"""CosFace: a margin on the cosine."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, at_label, cross_entropy


@keras.saving.register_keras_serializable("tf_detreg")
class CosFace(ProxyLoss):
    r"""CosFace loss (large margin cosine, additive margin softmax).

    `L = mean_i -log softmax_c( σ·(z_i·q_c - m·1[c = y_i]) )[y_i]`

    Paper settings: σ = 64, m = 0.35 on faces.
    Other code: pytorch-metric-learning's `CosFaceLoss` is equal; insightface's class has m = 0.4 by default.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; with several, a class is as near as its nearest proxy. Default 1.
        scale: σ. Default 64.0.
        margin: m. Default 0.35.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = CosFace(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [9.6, 112.0]

    Reference: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 1,
        scale: float = 64.0,
        margin: float = 0.35,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        self.scale = checks.positive("scale", scale)
        self.margin = checks.number("margin", margin)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        logits = self.scale * self.class_similarities(z, q)
        target = tf.fill(tf.shape(labels), tf.constant(self.scale * self.margin, logits.dtype))
        return cross_entropy(labels, tf.tensor_scatter_nd_sub(logits, at_label(labels), target))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "margin": self.margin}

"""ProxyNCA++: a probability over proxies, at low temperature."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, cross_entropy


@keras.saving.register_keras_serializable("tf_detreg")
class ProxyNCAPlusPlus(ProxyLoss):
    r"""ProxyNCA++ loss.

    `L = mean_i -log( e^{-d²(z_i, q_y)/T} / Σ_c e^{-d²(z_i, q_c)/T} )`

    Paper settings: T = 1/9, global max pooling, layer norm on the features; the authors' code has Adam with ε = 1 at
    4e-3 for the network and 4e2 for the proxies, and 8 classes × 4 images (SOP: 64 × 3 at 2.4e-2 and 2.4e2).
    Other code: The authors' `scale = 3` multiplies embeddings *and* proxies, hence d² by 9. pytorch-metric-learning
    calls this loss `ProxyNCALoss`, with `softmax_scale = 1/T`.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; with several, a class is as near as its nearest proxy. Default 1.
        temperature: T. Default 1/9.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = ProxyNCAPlusPlus(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [0.027, 25.227]

    Reference: Teh et al., "ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis", ECCV 2020.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 1,
        temperature: float = 1 / 9,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        self.temperature = checks.positive("temperature", temperature)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        return cross_entropy(labels, (2 * self.class_similarities(z, q) - 2) / self.temperature)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}

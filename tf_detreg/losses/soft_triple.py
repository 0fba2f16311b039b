"""SoftTriple: several centers per class, softly assigned."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, at_label, cross_entropy


@keras.saving.register_keras_serializable("tf_detreg")
class SoftTriple(ProxyLoss):
    r"""SoftTriple loss.

    `S_ic = Σ_k softmax_k(z_i·q_c^k / γ)·(z_i·q_c^k)`
    `L = mean_i -log softmax_c( λ·(S_ic - δ·1[c = y_i]) )[y_i] + τ/(C·K·(K-1)) Σ_c Σ_{s<t} D_cst`
    `D_cst = sqrt(2 + 1e-5 - 2 q_c^s·q_c^t)`

    The second part draws the centers of a class together, so that superfluous ones merge.

    Paper settings: λ = 20, γ = 0.1, δ = 0.01, τ = 0.2, K = 10 (2 for SOP); Adam 1e-4 with ε = 0.01, centers 1e-2,
    weight decay 1e-4 on both.
    Other code: The authors state γ as its inverse; pytorch-metric-learning's `SoftTripleLoss` has no τ term of its own.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; K, the centers. Default 10.
        scale: λ. Default 20.0.
        gamma: γ, temperature of the assignment to centers. Default 0.1.
        margin: δ. Default 0.01.
        tau: τ, weight of the center term. Default 0.2.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = SoftTriple(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0]] * 10 + [[-1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [0.022, 28.218]

    Reference: Qian et al., "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling", ICCV 2019.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 10,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        self.scale = checks.positive("scale", scale)
        self.gamma = checks.positive("gamma", gamma)
        self.margin = checks.number("margin", margin)
        self.tau = checks.number("tau", tau)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        logits = self.scale * self.soft_similarities(z, q)
        target = tf.fill(tf.shape(labels), tf.constant(self.scale * self.margin, logits.dtype))
        loss = cross_entropy(labels, tf.tensor_scatter_nd_sub(logits, at_label(labels), target))
        return loss + self.tau * self.spread(q) if self.tau and self.proxies_per_class > 1 else loss

    def soft_similarities(self, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        """Return `S`, `(B, C)`."""
        similarities = tf.matmul(z, q, transpose_b=True)
        similarities = tf.reshape(similarities, (-1, self.num_classes, self.proxies_per_class))
        return tf.reduce_sum(tf.nn.softmax(similarities / self.gamma) * similarities, axis=-1)

    def spread(self, q: tf.Tensor) -> tf.Tensor:
        """Return the mean distance between the centers of a class, halved: `1/(C·K·(K-1)) Σ_c Σ_{s<t} distance`."""
        k = self.proxies_per_class
        centers = tf.reshape(q, (self.num_classes, k, -1))
        distances = tf.sqrt(2 + 1e-5 - 2 * tf.matmul(centers, centers, transpose_b=True))
        later = tf.linalg.set_diag(tf.linalg.band_part(tf.ones((k, k), q.dtype), 0, -1), tf.zeros(k, q.dtype))
        return tf.reduce_sum(distances * later) / (self.num_classes * k * (k - 1))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": self.scale,
            "gamma": self.gamma,
            "margin": self.margin,
            "tau": self.tau,
        }

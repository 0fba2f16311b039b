"""ProxyGML: a graph between samples and their nearest proxies."""

import math
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, cross_entropy, set_apart


@keras.saving.register_keras_serializable("tf_detreg")
class ProxyGML(ProxyLoss):
    r"""Proxy-based graph metric learning loss.

    `S = z·qᵀ`; `A_ij = 1` for the `N` proxies of the own class and the nearest others, `k` in all
    `ℓ_ic = Σ_{j of class c} A_ij·S_ij`
    `L = mean_i -log( e^{ℓ_iy} / Σ_{c reached} e^{ℓ_ic} ) + λ·CE_j( q_j·Σ_{j' of c} q_j', class(j) )`

    with `k = max(⌈r·C·N⌉, N + 1)`: at least one is of another class, also where C is small. Ties at the
    k-th place are all kept. The second term needs a `(C·N, C)` matrix; with many classes, set λ = 0.

    Paper settings: CUB and Cars N = 12, r = 0.05, λ = 0.3, proxy rate 0.03; SOP N = 1, r = 0.05, λ = 0, proxy rate 0.3;
    Adam 1e-4 with ε = 0.01, batches of 32.
    Other code: The authors add 1000 to the own similarities before sorting, which costs the others 4 digits in float32
    and lets ties fall by index, and leave classes out whose logit is exactly 0; here the own proxies are set apart
    instead.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; N. Default 12.
        ratio: r, the share of all proxies that a sample is connected to. Default 0.05.
        proxy_weight: λ. Default 0.3.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = ProxyGML(num_classes=3, dim=2, proxies_per_class=1)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [0.735, 1.757]

    Reference: Zhu et al., "Fewer is More: A Deep Graph Metric Learning Perspective Using Fewer Proxies", NeurIPS 2020.
    """

    smallest_num_classes = 2

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 12,
        ratio: float = 0.05,
        proxy_weight: float = 0.3,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        self.ratio = checks.within("ratio", ratio, 0, 1, "(]")
        self.proxy_weight = checks.number("proxy_weight", proxy_weight)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        similarities = tf.matmul(z, q, transpose_b=True)
        loss = cross_entropy(labels, self.logits(similarities, self.own_proxies(labels)))
        return loss + self.proxy_weight * self.proxy_loss(q) if self.proxy_weight else loss

    def logits(self, similarities: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        """Return `ℓ`, `(B, C)`, with `-inf` for classes that no edge reaches."""
        n = self.proxies_per_class
        total = self.num_classes * n
        foreign = min(max(math.ceil(self.ratio * total), n + 1), total) - n
        _, others = set_apart(similarities, own)
        last = tf.stop_gradient(tf.math.top_k(others, foreign).values[:, -1:])
        edges = tf.tensor_scatter_nd_update(others >= last, own, tf.ones(tf.shape(own)[:2], tf.bool))
        edges = tf.reshape(edges, (-1, self.num_classes, n))
        kept = tf.where(edges, tf.reshape(similarities, tf.shape(edges)), 0)
        return tf.where(tf.reduce_any(edges, axis=-1), tf.reduce_sum(kept, axis=-1), float("-inf"))

    def proxy_loss(self, q: tf.Tensor) -> tf.Tensor:
        """Return the cross-entropy of the proxies themselves: each should find its own class."""
        sums = tf.reduce_sum(tf.reshape(q, (self.num_classes, self.proxies_per_class, -1)), axis=1)
        return cross_entropy(self.proxy_labels, tf.matmul(q, sums, transpose_b=True))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ratio": self.ratio, "proxy_weight": self.proxy_weight}

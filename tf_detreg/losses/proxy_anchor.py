"""Proxy-Anchor: each proxy is an anchor and looks at the whole batch."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.base import ProxyLoss, log1p_sum_exp, set_apart
from tf_detreg.losses.proxy_direction import direction_cosines


@keras.saving.register_keras_serializable("tf_detreg")
class ProxyAnchor(ProxyLoss):
    r"""Proxy-Anchor loss.

    `L = 1/|P⁺| Σ_{p∈P⁺} log(1 + Σ_{x∈X_p⁺} e^{-α(s(x,p) - δ)}) + 1/|P| Σ_{p∈P} log(1 + Σ_{x∈X_p⁻} e^{α(s(x,p) + δ)})`

    with cosine similarity `s`, all proxies `P`, and `P⁺` those that have a sample of their class in the batch.

    Paper settings: α = 32, δ = 0.1, one proxy a class, AdamW 1e-4 with the proxies' rate × 100 and weight decay 1e-4 on
    both, batches of 180 (120 with ResNet-50).
    Other code: some ports multiply the similarities by the one-hot mask *before* the exponential, so that each masked
    entry still adds `e^{αδ} = 24.5`; some average the positive term over samples instead of proxies. Neither is done
    here; values equal the authors' code and pytorch-metric-learning to rounding.

    With `direction=γ` the negatives' exponent becomes `α(s(x,p) + δ - γ·r)`, `r = cos(p - x, p_y - x)`: a push away
    from another class's proxy is weakened where it would also push x away from its own proxy `p_y` (`docs/direction.md`
    derives this).

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; each proxy is an anchor of its own. Default 1.
        alpha: Scale α. Default 32.0.
        margin: δ. Default 0.1.
        direction: γ, strength of the direction regularization. Default 0.0.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = ProxyAnchor(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [7.467, 39.467]

    Reference: Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020; Mohan et al., "Moving in
    the Right Direction: A Regularization for Deep Metric Learning", CVPR 2020.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 1,
        alpha: float = 32.0,
        margin: float = 0.1,
        direction: float = 0.0,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(num_classes, dim, proxies_per_class, initializer, name=name, dtype=dtype, trainable=trainable)
        self.alpha = checks.positive("alpha", alpha)
        self.margin = checks.number("margin", margin)
        self.direction = checks.number("direction", direction)

    def objective(self, labels: tf.Tensor, z: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
        # α goes into the embeddings, δ into the sums: a pass over (B, dim) or (C,) instead of (B, C).
        similarities = tf.matmul(self.alpha * z, q, transpose_b=True)
        own = self.own_proxies(labels)
        mine, others = set_apart(similarities, own)
        if self.direction:
            others -= self.alpha * self.direction * direction_cosines(similarities / self.alpha, own, q)
        pull = self.pull(labels, mine)
        return pull + tf.reduce_mean(log1p_sum_exp(others, axis=0, offset=self.alpha * self.margin))

    def pull(self, labels: tf.Tensor, mine: tf.Tensor) -> tf.Tensor:
        """Return the positive term, from α × each sample's similarities `(B, m)` to the proxies of its class."""
        present, slot = tf.unique(labels)
        positives = slot[None, :] == tf.range(tf.size(present))[:, None]
        exponents = tf.where(positives[:, :, None], -mine[None], float("-inf"))
        return tf.reduce_mean(log1p_sum_exp(exponents, axis=1, offset=self.alpha * self.margin))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "margin": self.margin, "direction": self.direction}

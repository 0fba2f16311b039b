"""Non-isotropy regularization: a conditional flow from proxies to samples gives each class a shape of its own."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks, weight_groups
from tf_detreg.heads.conditioner import Conditioner
from tf_detreg.heads.coupling import affine_coupling, split
from tf_detreg.regularizers.base import Context, Regularizer
from tf_detreg.vectors import unit

# Above this negative log-likelihood the exponential goes on as a straight line, so that it cannot overflow.
KNEE = 20.0


@keras.saving.register_keras_serializable("tf_detreg")
class NonIsotropy(Regularizer):
    r"""Non-isotropy regularization (NIR).

    `penalty = mean_i exp(ℓ_i)`,  `ℓ_i = ½·|f(z_i | q_y)|² - log|det ∂f/∂z_i|`

    `f` is an invertible flow on the embedding, conditioned on the sample's own proxy: affine couplings as in
    `heads.RealNVP`, whose networks also read the proxy. It is trained with the model. `ℓ` is, up to a constant, the
    negative log-likelihood of the sample as a deformed Gaussian around its proxy. The proxy alone must explain where
    the samples of its class lie, and the class need not be a round ball around it, as pure proxy losses make it.

    **Clip gradients** (`training.optimizer(clipnorm=1.0)`; a run does so by itself). Within some ten steps `ℓ` is far
    below 0, and the penalty and its gradient are as good as 0, so the flow no longer follows the embeddings. Then
    single batches come to `ℓ` of 20 and more, with a gradient of 10⁸ or more, and the head nearly stands still for the
    rest of the training; most likely since Adam's mean of squares keeps such a gradient. In two of three trainings of
    our study it cost some 15 points of R@1.

    Above `ℓ = 20` the exponential continues as its tangent. A class with several proxies explains a sample by the
    nearest. Pair losses have no proxies: then class means of the batch take their place.

    Paper settings: `penalty + w · Proxy-Anchor` with w = 0.0075 (CUB), 0.01 (Cars) or 0.3 (SOP), which is Proxy-Anchor
    plus 133, 100 or 3.3 times this penalty; 5 GLOW blocks, that is 10 couplings, each with a network of 7 hidden
    layers of width 128, log-scales bounded by 2; the flow's rate is 50 times the backbone's (equal on SOP), the
    proxies' 4,000 times; the backbone rests for the first epoch (5 on SOP).
    Other code: the authors permute the coordinates at random before each block, start the networks as torch does, and
    bound log-scales by an arctangent; here couplings alternate halves, start near the identity, and the bound is a
    hyperbolic tangent. Their Proxy-Anchor averages the positive term over samples instead of proxies.

    Args:
        dim: Size of an embedding, 2 or more.
        depth: Number of couplings. Default 10.
        hidden: Width of their networks. Default 128.
        hidden_layers: Of each network. Default 7.
        scale_bound: Bound of a log-scale. Default 2.0.
        exponential: `False` takes the mean of `ℓ_i / dim` instead, the plain negative log-likelihood, which has no
            lower bound on a sphere. Default True.
        weight: Factor in the objective. Default 100.0, the authors' for Cars.

    Call arguments:
        context: With `labels` and `embeddings`, and with `proxies` and `proxy_labels` for a proxy loss.

    Raises:
        ValueError: If an argument is wrong, or the embeddings have another size.

    Example:

    >>> from tf_detreg.regularizers import Context
    >>> penalty = NonIsotropy(dim=4, depth=2, hidden=8)
    >>> context = Context(labels=tf.range(3), embeddings=tf.eye(3, 4), proxies=tf.eye(3, 4), proxy_labels=tf.range(3))
    >>> bool(abs(penalty.penalty(context) - tf.exp(0.5)) < 0.3)  # the flow starts near the identity
    True

    Reference: Roth et al., "Non-isotropy Regularization for Proxy-based Deep Metric Learning", CVPR 2022.
    """

    steep = True

    def __init__(
        self,
        dim: int,
        depth: int = 10,
        hidden: int = 128,
        hidden_layers: int = 7,
        scale_bound: float = 2.0,
        exponential: bool = True,
        weight: float = 100.0,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, name=name, dtype=dtype, trainable=trainable)
        self.dim = checks.integer("dim", dim, 2)
        self.depth = checks.integer("depth", depth, 1)
        self.hidden = checks.integer("hidden", hidden, 1)
        self.hidden_layers = checks.integer("hidden_layers", hidden_layers, 0)
        self.scale_bound = checks.positive("scale_bound", scale_bound)
        self.exponential = exponential
        self.nets = [self._net(layer) for layer in range(self.depth)]
        self.built = True
        weight_groups.register(self)  # the flow learns at the rate of heads

    def _net(self, layer: int) -> Conditioner:
        _, read, moved = split(self.dim, layer)
        net = Conditioner(2 * moved, self.hidden, self.hidden_layers, dtype=self.dtype_policy, name=f"net_{layer}")
        net.build((None, read + self.dim))
        return net

    def flow(self, z: tf.Tensor, condition: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `f(z | condition)`, `(B, dim)`, and `log|det ∂f/∂z|`, `(B,)`."""
        log_scales: list[tf.Tensor] = []
        for layer, net in enumerate(self.nets):

            def conditioned(z_a: tf.Tensor, training: bool | None, net: Conditioner = net) -> tf.Tensor:
                return net(tf.concat([z_a, condition], axis=-1), training=training)

            z = affine_coupling(
                split(self.dim, layer)[0], conditioned, None, self.scale_bound, log_scales.append
            ).forward(z)
        return z, tf.add_n([tf.reduce_sum(s, axis=-1) for s in log_scales])

    def penalty(self, context: Context) -> tf.Tensor:
        labels, embeddings = context.need("labels", "embeddings", by=self.name)
        z = unit(tf.cast(embeddings, self.compute_dtype))
        if z.shape[-1] != self.dim:
            raise ValueError(f"`embeddings` must have size dim={self.dim}; received shape {tuple(z.shape)}.")
        noise, log_determinant = self.flow(z, self._own_centers(tf.reshape(labels, [-1]), z, context))
        surprise = tf.reduce_sum(tf.square(noise), axis=-1) / 2 - log_determinant
        if not self.exponential:
            return tf.reduce_mean(surprise) / self.dim
        bent = tf.exp(tf.minimum(surprise, KNEE))
        return tf.reduce_mean(bent * (1 + tf.nn.relu(surprise - KNEE)))

    def _own_centers(self, labels: tf.Tensor, z: tf.Tensor, context: Context) -> tf.Tensor:
        """Return the nearest proxy of each sample's class, or its mean in the batch: unit vectors `(B, dim)`."""
        if context.proxies is None:
            classes, slot = tf.unique(labels)
            means = unit(tf.math.unsorted_segment_sum(z, slot, tf.size(classes)))
            return tf.gather(means, slot)
        proxies, proxy_labels = context.need("proxies", "proxy_labels", by=self.name)
        q = unit(tf.cast(proxies, self.compute_dtype))
        own = tf.cast(labels, proxy_labels.dtype)[:, None] == proxy_labels[None, :]
        similarities = tf.where(own, tf.matmul(z, q, transpose_b=True), float("-inf"))
        return tf.gather(q, tf.argmax(similarities, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dim": self.dim,
            "depth": self.depth,
            "hidden": self.hidden,
            "hidden_layers": self.hidden_layers,
            "scale_bound": self.scale_bound,
            "exponential": self.exponential,
        }

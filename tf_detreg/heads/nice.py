"""NICE: additive couplings and one diagonal scaling."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg.heads.coupling import additive_coupling, bounded, split
from tf_detreg.heads.coupling_head import CouplingHead


@keras.saving.register_keras_serializable("tf_detreg")
class NICE(CouplingHead):
    """A flow of additive coupling layers that ends in a learned scale per coordinate.

        coupling:   y_a = z_a,    y_b = z_b + net_t(z_a)
        scaling:    y = z ⊙ exp(s),       s = b·tanh(raw / b),  one s for all samples

    A coupling's Jacobian is `[[I, 0], [∂net/∂z_a, I]]`: its diagonal is 1, so `det J_t = 1` and `det(J_t + I) = 2^d`
    whatever the network does. **No determinant penalty has a gradient there**: only the final scaling has one,

        R = (1/d) Σ_j [softplus(s_j) − log 2],

    which does not depend on the sample. NICE therefore shows what the determinant cannot see: an additive coupling may
    be a shear as steep as it likes and preserve volume all the same (`tf_detreg.analysis.lipschitz` sees it).

    Args:
        dim: Width of the flow and of the embedding, 2 or more.
        depth: Number of coupling layers, 1 or more. Default 12.
        hidden: Width of the networks' hidden layers. Default 512.
        hidden_layers: Their number in each network. Default 1.
        activation: Of the hidden layers. Default `"relu"`.
        conditioner_dropout: Rate after each hidden layer, while training. Default 0.
        scale_bound: `b` > 0, of the final scaling. Default 0.5.
        penalty: λ of `loss + λ·R`; negative for a rival. Default 0.
        measure: `"isometric"` (default), `"shifted"` (the paper's) or `"log_det"`.
        projection: `"auto"` (default), `"always"` or `"never"`: the dense layer before the flow.
        dropout: Rate on the incoming features, while training. Default 0.
        connection: Between projection and flow: `"rms"` (default) or a Keras activation, `"linear"` for nothing.
        name, dtype, trainable: As in `keras.layers.Layer`.

    Call arguments:
        features: `(B, F)` floats, F static.
        training: Whether dropout acts and the penalty is added.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: See `FlowHead`.

    Example:
        >>> head = NICE(dim=8, depth=4, hidden=16)
        >>> head(tf.random.normal((3, 20))).shape
        TensorShape([3, 8])
        >>> y, log_scales = head.flow(head.project(tf.random.normal((3, 20))))
        >>> [tuple(s.shape) for s in log_scales]
        [(8,)]

    Reference:
        Dinh, Krueger, Bengio, "NICE: Non-linear Independent Components Estimation", 2014,
        https://arxiv.org/abs/1410.8516
    """

    def build_flow(self) -> None:
        sizes = [split(self.dim, layer)[1:] for layer in range(self.depth)]
        self.conditioners = self.build_conditioners(sizes)
        self.raw_scale = self.add_weight(name="raw_scale", shape=(self.dim,), initializer="zeros")

    def factors(self, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list[Any]:
        from tensorflow_probability import bijectors as tfb

        couplings = [
            additive_coupling(split(self.dim, layer)[0], net, training) for layer, net in enumerate(self.conditioners)
        ]
        log_scale = bounded(self.raw_scale.value, self.scale_bound)
        record(log_scale)
        return [*couplings, tfb.Scale(log_scale=log_scale)]

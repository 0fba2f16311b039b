"""RealNVP: affine couplings, the flow of the determinant-regularization paper."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg.heads.coupling import affine_coupling, shift_and_log_scale, split
from tf_detreg.heads.coupling_head import CouplingHead


@keras.saving.register_keras_serializable("tf_detreg")
class RealNVP(CouplingHead):
    """A flow of affine coupling layers.

    Layer `t` cuts its input into two halves and moves one of them by an amount that only the other decides:

        y_a = z_a
        y_b = z_b ⊙ exp(s) + shift,      (shift, raw) = net_t(z_a),     s = b·tanh(raw / b)

    *Invertible*: `z_a` is still there to be read, so `z_b = (y_b − shift) ⊙ exp(−s)`, whatever `net_t` is.
    *Its Jacobian is triangular*: with the read half first it is `[[I, 0], [∂y_b/∂z_a, diag(exp s)]]`, so

        det J_t = Π_j exp(s_j),         det(J_t + I) = 2^|a| · Π_j (1 + exp s_j)

    and the second, over `2^d`, is the paper's penalty: `(1/d) Σ_t Σ_j [softplus(s_tj) − log 2]`, here
    `RealNVP(dim, penalty=0.05, measure="shifted")`. The default measure is `(1/d) Σ_t Σ_j s_tj²`, which did better on
    frozen features (`docs/results.md`). No determinant is ever computed. The halves swap roles from layer to layer, so
    that after two layers every coordinate has moved.

    The bound `b` on the log-scale is what makes the rival of a dueling pair possible, whose objective `−λR` would run
    to −∞ otherwise, and what keeps the inverse exact in float32 (see `docs/heads.md`). The networks' last layers start
    near zero: an untrained head returns the projected feature.

    Args:
        dim: Width of the flow and of the embedding, 2 or more.
        depth: `T`, the number of coupling layers, 1 or more. Default 12.
        hidden: Width of the networks' hidden layers. Default 512.
        hidden_layers: Their number in each network. Default 1.
        activation: Of the hidden layers. Default `"relu"`.
        conditioner_dropout: Rate after each hidden layer, while training. Default 0.
        scale_bound: `b` > 0. Default 0.5.
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
        >>> head = RealNVP(dim=8, depth=4, hidden=16, penalty=1.0)
        >>> embeddings = head(tf.random.normal((3, 20)), training=True)
        >>> embeddings.shape, len(head.losses)
        (TensorShape([3, 8]), 1)

        The map itself, before normalization, and back:

        >>> z = head.project(tf.random.normal((3, 20)))
        >>> y, log_scales = head.flow(z)
        >>> [tuple(s.shape) for s in log_scales]
        [(3, 4), (3, 4), (3, 4), (3, 4)]
        >>> bool(tf.reduce_max(tf.abs(head.inverse(y) - z)) < 1e-5)
        True

    Reference:
        Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2017, https://arxiv.org/abs/1605.08803
    """

    def build_flow(self) -> None:
        reads_and_moves = [split(self.dim, layer)[1:] for layer in range(self.depth)]
        self.conditioners = self.build_conditioners([(read, 2 * moved) for read, moved in reads_and_moves])

    def flow(self, z: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        # What the chain of `factors` computes. But the halves are joined once, at the end: joined and cut in every
        # layer, a second copy of each would be kept for the backward pass.
        read, moved = tf.split(z, split(self.dim, 0)[1:], axis=-1)
        log_scales = []
        for net in self.conditioners:
            shift, log_scale = shift_and_log_scale(net, read, training, self.scale_bound)
            read, moved = moved * tf.exp(log_scale) + shift, read
            log_scales.append(log_scale)
        # After an odd number of layers the tail is the one to be read next.
        halves = [moved, read] if self.depth % 2 else [read, moved]
        return tf.concat(halves, axis=-1), log_scales

    def factors(self, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list[Any]:
        return [
            affine_coupling(split(self.dim, layer)[0], net, training, self.scale_bound, record)
            for layer, net in enumerate(self.conditioners)
        ]

"""Glow for vectors: normalize, mix by an invertible matrix, couple."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg.heads.coupling import affine_coupling, bounded, split
from tf_detreg.heads.coupling_head import CouplingHead
from tf_detreg.replicas import global_rows


@keras.saving.register_keras_serializable("tf_detreg")
class Glow(CouplingHead):
    """A flow of steps `ActNorm → invertible matrix → affine coupling`.

        ActNorm:   y = (z + shift) ⊙ exp(s)
        matrix:    y = P·L·U·z,    L unit lower triangular, U upper triangular with diagonal exp(s), P a permutation
        coupling:  y_a = z_a,  y_b = z_b ⊙ exp(s(z_a)) + shift(z_a)

    The matrix is kept as `P·L·U` because each factor is invertible by construction and its determinant is on the
    diagonal; `P` reverses the order of the coordinates, so that the next coupling moves the half that this one read.
    The penalty counts *factors*: ActNorm, `U` and the coupling each add their `Σ_j [softplus(s_j) − log 2]`, `L` has
    diagonal 1 and adds 0, `P` only reorders. (The product `W = P·L·U` is not triangular, and `log det(W + I)` is
    another number.) All log-scales are bounded, `s = b·tanh(raw / b)`.

    An untrained head is the identity. The first training batch sets every ActNorm so that each coordinate leaves it
    with mean 0 and variance 1 (as far as the bound on its scale allows): the data-dependent initialization of the
    paper. Under a distribution strategy it is the batch of all replicas. That it has happened is a weight of the layer
    and is saved with it.

    Args:
        dim: Width of the flow and of the embedding, 2 or more.
        depth: Number of steps, 1 or more. Default 12.
        hidden: Width of the networks' hidden layers. Default 512.
        hidden_layers: Their number in each network. Default 1.
        activation: Of the hidden layers. Default `"relu"`.
        conditioner_dropout: Rate after each hidden layer, while training. Default 0.
        scale_bound: `b` > 0. Default 0.5.
        penalty: λ of `loss + λ·R`; negative for a rival. Default 0.
        measure: `"isometric"` (default), `"shifted"` (the paper's) or `"log_det"`.
        projection: `"auto"` (default), `"always"` or `"never"`: the dense layer before the flow.
        dropout: Rate on the incoming features, while training. Default 0.
        data_dependent: Whether the first training batch sets the ActNorms. Default True.
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
        >>> head = Glow(dim=8, depth=3, hidden=16)
        >>> head(tf.random.normal((5, 20)), training=True).shape
        TensorShape([5, 8])
        >>> y, log_scales = head.flow(head.project(tf.random.normal((5, 20))))
        >>> sorted({tuple(s.shape) for s in log_scales}), len(log_scales)  # ActNorm and U; couplings
        ([(5, 4), (8,)], 9)

    Reference:
        Kingma, Dhariwal, "Glow: Generative Flow with Invertible 1×1 Convolutions", 2018,
        https://arxiv.org/abs/1807.03039
    """

    def __init__(
        self,
        dim: int,
        depth: int = 12,
        hidden: int = 512,
        hidden_layers: int = 1,
        activation: Any = "relu",
        conditioner_dropout: float = 0.0,
        scale_bound: float = 0.5,
        penalty: float = 0.0,
        measure: str = "isometric",
        projection: str = "auto",
        dropout: float = 0.0,
        connection: str = "rms",
        data_dependent: bool = True,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            dim,
            depth,
            hidden,
            hidden_layers,
            activation,
            conditioner_dropout,
            scale_bound,
            penalty,
            measure,
            projection,
            dropout,
            connection,
            name=name,
            dtype=dtype,
            trainable=trainable,
        )
        self.data_dependent = bool(data_dependent)

    def build_flow(self) -> None:
        _, read, moved = split(self.dim, 0)
        self.conditioners = self.build_conditioners([(read, 2 * moved)] * self.depth)

        def weights(name: str, *shape: int) -> list[keras.Variable]:
            return [self.add_weight(name=f"{name}_{i}", shape=shape, initializer="zeros") for i in range(self.depth)]

        self.norm_shift = weights("norm_shift", self.dim)
        self.norm_scale = weights("norm_scale", self.dim)
        # Of `lower` and `upper` only the part off the diagonal is used.
        self.lower = weights("lower", self.dim, self.dim)
        self.upper = weights("upper", self.dim, self.dim)
        self.upper_scale = weights("upper_scale", self.dim)
        self.initialized = self.add_weight(name="initialized", shape=(), initializer="zeros", trainable=False)

    def step(self, layer: int, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list[Any]:
        """Return the factors of one step, first applied first."""
        from tensorflow_probability import bijectors as tfb

        from tf_detreg.heads.triangular import Reverse, Triangular

        norm_scale = bounded(self.norm_scale[layer].value, self.scale_bound)
        upper_scale = bounded(self.upper_scale[layer].value, self.scale_bound)
        record(norm_scale)
        record(upper_scale)
        ones, zeros = tf.ones_like(norm_scale), tf.zeros_like(norm_scale)
        lower = tf.linalg.set_diag(tf.linalg.band_part(self.lower[layer].value, -1, 0), ones)
        upper = tf.linalg.set_diag(tf.linalg.band_part(self.upper[layer].value, 0, -1), tf.exp(upper_scale))
        return [
            # As a tensor: TFP's cache knows bijectors by their parameters, and a variable is one whatever its value.
            tfb.Shift(tf.convert_to_tensor(self.norm_shift[layer].value)),
            tfb.Scale(log_scale=norm_scale),
            Triangular(upper, upper_scale, lower=False),
            Triangular(lower, zeros, lower=True),
            Reverse(),
            affine_coupling(split(self.dim, 0)[0], self.conditioners[layer], training, self.scale_bound, record),
        ]

    def factors(self, record: Callable[[tf.Tensor], None], training: bool | None = None) -> list[Any]:
        from tf_detreg.heads.triangular import Reverse

        steps = [factor for layer in range(self.depth) for factor in self.step(layer, record, training)]
        # An odd number of reversals is made even, so that an untrained head is the identity.
        return [*steps, Reverse()] if self.depth % 2 else steps

    def flow(self, z: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        if training and self.data_dependent:
            # Replicas may not wait for each other inside of a condition, so they share their rows before it.
            rows = global_rows(tf.stop_gradient(z))
            tf.cond(self.initialized.value > 0, lambda: tf.constant(False), lambda: self._initialize(rows))
        return super().flow(z, training)

    def _initialize(self, z: tf.Tensor) -> tf.Tensor:
        """Set every ActNorm from the batch that arrives at it; each replica sets its own copy, to the same values."""
        for layer in range(self.depth):
            mean, variance = tf.nn.moments(z, axes=[0])
            # atanh takes the wanted log-scale back through the bound; beyond the bound, stop short of its end.
            wanted = tf.clip_by_value(-0.5 * tf.math.log(variance + 1e-6) / self.scale_bound, -0.95, 0.95)
            self.norm_shift[layer].assign(-mean)
            self.norm_scale[layer].assign(self.scale_bound * tf.atanh(wanted))
            for factor in self.step(layer, lambda log_scale: None):
                z = factor.forward(z)
        self.initialized.assign(1.0)
        return tf.constant(True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_dependent": self.data_dependent}

"""The control for studies: the same capacity and dropout without invertibility."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.heads.base import Head, without_penalty
from tf_detreg.heads.conditioner import Conditioner


@keras.saving.register_keras_serializable("tf_detreg")
class ResidualMLP(Head):
    """`z ← z + net_t(z)`, `blocks` times, then L2: a plain residual network.

    It answers the question "does invertibility help, or only the additional layers?". It has no
    triangular Jacobian, hence no log-scales and no inverse.

    Args:
        dim: Width of the embedding, 2 or more.
        blocks: Number of residual blocks, 1 or more. Default 3.
        hidden: Width of each block's hidden layer. Default 384: about the parameters of a RealNVP of depth 12 with
            hidden 128.
        activation: Of the hidden layers. Default `"relu"`.
        conditioner_dropout: Rate after each hidden layer, while training. Default 0.
        projection: `"auto"` (default), `"always"` or `"never"`: the dense layer before the blocks.
        dropout: Rate on the incoming features, while training. Default 0.
        connection: Between projection and blocks: `"rms"` (default) or a Keras activation.
        name, dtype, trainable: As in `keras.layers.Layer`.

    Call arguments:
        features: `(B, F)` floats, F static.
        training: Whether dropout acts.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: See `Head`.

    Example:
        >>> ResidualMLP(dim=8, hidden=16)(tf.random.normal((3, 20))).shape
        TensorShape([3, 8])
    """

    @without_penalty
    def __init__(
        self,
        dim: int,
        blocks: int = 3,
        hidden: int = 384,
        activation: Any = "relu",
        conditioner_dropout: float = 0.0,
        projection: str = "auto",
        dropout: float = 0.0,
        connection: str = "rms",
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(dim, projection, dropout, connection, name=name, dtype=dtype, trainable=trainable)
        self.blocks = checks.integer("blocks", blocks, 1)
        self.hidden = checks.integer("hidden", hidden, 1)
        self.activation = keras.activations.get(activation)
        self.conditioner_dropout = checks.within("conditioner_dropout", conditioner_dropout, 0, 1, "[)")

    def build_transform(self) -> None:
        self.nets = []
        for block in range(self.blocks):
            net = Conditioner(
                self.dim,
                self.hidden,
                activation=self.activation,
                dropout=self.conditioner_dropout,
                name=f"block_{block}",
                dtype=self.dtype_policy,
            )
            net.build((None, self.dim))
            self.nets.append(net)

    def transform(self, z: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        for net in self.nets:
            z = z + net(z, training=training)
        return z

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "blocks": self.blocks,
            "hidden": self.hidden,
            "activation": keras.activations.serialize(self.activation),
            "conditioner_dropout": self.conditioner_dropout,
        }

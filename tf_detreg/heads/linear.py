"""The baseline: one dense layer."""

from typing import Any

import keras

from tf_detreg.heads.base import Head, without_penalty


@keras.saving.register_keras_serializable("tf_detreg")
class Linear(Head):
    """`embedding = (W·x + b) / ‖W·x + b‖`, the baseline of every study.

    Keep the bias: Proxy-Anchor on a linear head without one was measured to sit on a plateau for ever.

    Args:
        dim: Width of the embedding, 2 or more.
        dropout: Rate on the incoming features, while training. Default 0.
        projection: `"always"` (default), `"auto"` or `"never"`: the dense layer, which is the whole head.
        connection: Activation after the dense layer. Default `"linear"`: none.
        name, dtype, trainable: As in `keras.layers.Layer`.

    Call arguments:
        features: `(B, F)` floats, F static.
        training: Whether dropout acts.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: See `Head`.

    Example:
        >>> Linear(dim=8)(tf.random.normal((3, 20))).shape
        TensorShape([3, 8])
    """

    @without_penalty
    def __init__(
        self,
        dim: int,
        dropout: float = 0.0,
        projection: str = "always",
        connection: str = "linear",
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(dim, projection, dropout, connection, name=name, dtype=dtype, trainable=trainable)

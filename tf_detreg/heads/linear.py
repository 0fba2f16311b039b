"""The baseline: one dense layer."""

import keras

from tf_detreg.heads.base import FlowHead


@keras.saving.register_keras_serializable("tf_detreg")
class Linear(FlowHead):
    """`embedding = (W·x + b) / ‖W·x + b‖`, with the methods of a flow head and an empty flow.

    Keep the bias: Proxy-Anchor on a linear head without one was measured to sit on a plateau for ever.

    `flow(z)` returns `z` and no log-scales, so R is 0 and a `penalty` changes nothing; it is accepted so that a linear
    head can stand wherever a flow does.

    Args:
        dim: Width of the embedding, 2 or more.
        dropout: Rate on the incoming features, while training. Default 0.
        penalty: Accepted and without effect. Default 0.
        measure: Accepted and without effect. Default `"isometric"`.
        projection: `"always"` (default), `"auto"` or `"never"`: the dense layer, which is the whole head.
        **kwargs: `connection` of `FlowHead`, here `"linear"` unless given, and what every Keras layer takes.

    Call arguments:
        features: `(B, F)` floats, F static.
        training: Whether dropout acts.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: See `FlowHead`.

    Example:
        >>> Linear(dim=8)(tf.random.normal((3, 20))).shape
        TensorShape([3, 8])
    """

    def __init__(self, dim, dropout=0.0, penalty=0.0, measure="isometric", projection="always", **kwargs):
        super().__init__(dim, penalty, measure, projection, dropout, **{"connection": "linear", **kwargs})

    def factors(self, record, training=None):
        return []

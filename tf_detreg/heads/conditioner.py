"""The small network inside a coupling layer."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg.shapes import Shape


@keras.saving.register_keras_serializable("tf_detreg")
class Conditioner(keras.layers.Layer):
    """A multilayer perceptron whose output starts near zero, so that the coupling that it drives starts near identity.

        h ← dropout(activation(W h + b))   hidden_layers times,   then   out = V h + c

    Args:
        outputs: Number of outputs.
        hidden: Width of each hidden layer. Default 512.
        hidden_layers: Their number. Default 1; 0 gives a linear conditioner.
        activation: Of the hidden layers. Default `"relu"`.
        dropout: Rate after each hidden layer, while training. Default 0.

    Call arguments:
        inputs: `(B, n)`, float32 or float64.
        training: Whether dropout acts.

    Returns:
        `(B, outputs)`.
    """

    def __init__(
        self,
        outputs: int,
        hidden: int = 512,
        hidden_layers: int = 1,
        activation: Any = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.hidden = hidden
        self.hidden_layers = hidden_layers
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        # Near zero and not zero: zero would keep the hidden layers without a gradient in the first step.
        near_zero = keras.initializers.VarianceScaling(scale=1e-4, mode="fan_in")
        policy = self.dtype_policy
        self.stack = []
        for _ in range(hidden_layers):
            self.stack.append(keras.layers.Dense(hidden, activation=self.activation, dtype=policy))
            if dropout:
                self.stack.append(keras.layers.Dropout(dropout, dtype=policy))
        self.stack.append(keras.layers.Dense(outputs, kernel_initializer=near_zero, dtype=policy))

    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)
        for layer in self.stack:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        h = inputs
        for layer in self.stack:
            h = layer(h, training=training) if isinstance(layer, keras.layers.Dropout) else layer(h)
        return h

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "outputs": self.outputs,
            "hidden": self.hidden,
            "hidden_layers": self.hidden_layers,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }

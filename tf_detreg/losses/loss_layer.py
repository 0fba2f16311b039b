"""What the losses that own weights share as Keras layers: precision, and inputs of any kind."""

import keras
import tensorflow as tf

from tf_detreg import weight_groups


class LossLayer(keras.layers.Layer):
    """Base of the losses that own weights: proxies, a boundary, or a memory.

    Computed in float32, or float64 with `dtype="float64"`: never in half precision, whatever the policy.

    Args:
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        labels: integers, one for each embedding.
        embeddings: `(B, dim)`, any float type.
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        weight_groups.register(self)

    def __call__(self, labels, embeddings, **kwargs):
        # Keras would take a list for several inputs, and builds from the shapes of tensors alone.
        return super().__call__(_as_tensor(labels), _as_tensor(embeddings), **kwargs)

    def add_weight(self, *args, **kwargs):
        # Read as they are stored: under a mixed policy Keras would hand them over in half precision.
        return super().add_weight(*args, autocast=False, **kwargs)

    @property
    def precision(self) -> str:
        """Type of the computation: float64 if the layer's is, else float32."""
        return "float64" if self.compute_dtype == "float64" else "float32"


def _as_tensor(values):
    return values if isinstance(values, keras.KerasTensor) else tf.convert_to_tensor(values)

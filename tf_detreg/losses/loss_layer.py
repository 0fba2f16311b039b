"""What the losses that own weights share as Keras layers: precision, and inputs of any kind."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import weight_groups
from tf_detreg._compat import in_compiled_loss
from tf_detreg.losses.labels import as_embeddings, as_labels, refuse_swapped
from tf_detreg.losses.options import described


class LossLayer(keras.layers.Layer):
    """Base of the losses that own weights: proxies, a boundary, or a memory.

    Computed in float32, or float64 with `dtype="float64"`: never in half precision, whatever the policy.

    Args:
        name, dtype, trainable: As in `keras.layers.Layer`. Computation is in float32, or float64 if asked.

    Call arguments:
        labels: Integers, one for each embedding.
        embeddings: `(B, dim)`, any float type.

    Raises:
        ValueError: If Keras calls it as `compile(loss=...)`, where its weights would stay as they are.
    """

    def __init__(self, *, name: str | None = None, dtype: Any = "float32", trainable: bool = True) -> None:
        super().__init__(autocast=False, name=name, dtype=dtype, trainable=trainable)
        weight_groups.register(self)

    def __call__(self, labels: Any, embeddings: Any, **kwargs: Any) -> tf.Tensor:
        if in_compiled_loss():
            raise ValueError(
                f"{type(self).__name__} owns weights, which compile(loss=...) would not train: give it to "
                "training.MetricModel(embedder, loss), or call it in the `compute_loss` of a model that holds it as an "
                "attribute."
            )
        # Keras would take a list for several inputs, and builds from the shapes of tensors alone.
        if not any(isinstance(values, keras.KerasTensor) for values in (labels, embeddings)):
            labels, embeddings = as_labels(labels), as_embeddings(embeddings)
            refuse_swapped(labels, embeddings)  # before proxies are built of the size of a batch
        return super().__call__(labels, embeddings, **kwargs)

    def __repr__(self) -> str:
        return described(self)

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        # Read as they are stored: under a mixed policy Keras would hand them over in half precision.
        return super().add_weight(*args, autocast=False, **kwargs)

    @property
    def precision(self) -> str:
        """Return the type of the computation: float64 if the layer's is, else float32."""
        return "float64" if self.compute_dtype == "float64" else "float32"

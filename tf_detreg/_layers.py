"""Everything that `keras.models.load_model` must know, registered by importing it."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tf_detreg needs Keras' TensorFlow backend, but Keras runs on {keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first `import keras`."
    )

from tf_detreg import backbones, heads, losses, miners, regularizers, training
from tf_detreg.models import load

__all__ = ["backbones", "heads", "load", "losses", "miners", "regularizers", "training"]

"""What identifies a model."""

import hashlib

import numpy as np


def fingerprint(embedder) -> str:
    """A short text that is the same for the same weights, and another one after any training step.

    Args:
        embedder: A Keras model; of a `MetricModel`, its embedder counts alone.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> fingerprint(model) == fingerprint(model), len(fingerprint(model))
        (True, 16)
    """
    digest = hashlib.sha256()
    for weight in getattr(embedder, "embedder", embedder).get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]

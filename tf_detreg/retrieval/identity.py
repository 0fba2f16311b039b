r"""What identifies a model: its embeddings of a few fixed pictures.

A hash of the weights says that two models differ when they do the same: after a reload that orders the weights anew,
after adapters are merged, in another precision. The probes \(x_1 … x_8\) are pictures made from a fixed stream of
bytes. The model's unit vectors are multiplied by a fixed matrix of signs, which keeps distances (Johnson and
Lindenstrauss), and rounded to 16 bits, so that a fingerprint is a short text whatever the dimension. Two models count
as one when

\[1 - \frac{1}{16} \sum_i \lVert R f(x_i) - R g(x_i) \rVert^2 \ge 0.999,\]

an estimate of the mean cosine of their embeddings (from 64 numbers, so its distance from 1 is right to about a fifth).
Training steps that move the embeddings by less than that are not told apart. The files that `export` writes carry the
fingerprint of the Keras model that they come from; `export.verify` measures how far each is from it.

Reference:
    Johnson and Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

LEAST_COSINE = 0.999
"""Mean cosine of the probes' embeddings from which on two models count as one."""
_KIND = "probes-1"
_PROBES, _WIDTH, _GRID = 8, 8, 4
_ANY_SIZE = 96  # pixels a side, for a model that takes images of any size
_STEPS = 4096.0


def fingerprint(embedder: Any) -> str:
    """Return a short text that is nearly the same for models that do the same; compare two with `same_model`.

    Args:
        embedder: A Keras model; of a `MetricModel`, its embedder counts alone. It is run on eight small pictures.

    Returns:
        Text: what the model makes of the probes, and a hash of the weights, which alone is what version 0.1.0 wrote. Of
        a model that cannot be run on the probes, the hash alone.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> same_model(fingerprint(model), fingerprint(model))
        True
    """
    embedder = getattr(embedder, "embedder", embedder)
    digest = hashlib.sha256()
    for weight in embedder.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    mark = digest.hexdigest()[:16]
    sketch = _sketch(embedder)
    if sketch is None:
        return mark
    return f"{_KIND}:{base64.b64encode(sketch.tobytes()).decode()}:{mark}"


def same_model(first: str, second: str) -> bool:
    """Return whether two fingerprints are of models that do the same.

    Args:
        first: What `fingerprint` returned. Other texts, which users may have chosen, have to be equal.
        second: Another one. One of version 0.1.0 is compared by the hash of the weights.

    Example:
        >>> same_model("my model", "my model"), same_model("my model", "another")
        (True, False)
    """
    if first == second or short(first) == short(second):
        return True
    ours, theirs = _values(first), _values(second)
    if ours is None or theirs is None:
        return False
    result: bool = 1.0 - np.square(ours - theirs).sum() / (2 * _PROBES) >= LEAST_COSINE
    return result


def short(text: str) -> str:
    """Return the part of a fingerprint that is shown: the hash of the weights, or a text of another kind itself."""
    return text.rsplit(":", 1)[1] if text.startswith(f"{_KIND}:") else text


def _values(text: str) -> np.ndarray | None:
    parts = text.split(":")
    if len(parts) != 3 or parts[0] != _KIND:
        return None
    try:
        values = np.frombuffer(base64.b64decode(parts[1], validate=True), "<i2")
    except (binascii.Error, ValueError):
        return None
    return values / _STEPS if values.size == _PROBES * _WIDTH else None


def _sketch(embedder: Any) -> np.ndarray | None:
    """Return rounded numbers `(64,)` that stand for the probes' embeddings; None where there are none."""
    inputs: Sequence[Any] = getattr(embedder, "inputs", None) or ()
    outputs: Sequence[Any] = getattr(embedder, "outputs", None) or ()
    if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    shape = [side or _ANY_SIZE for side in inputs[0].shape[1:]]
    vectors: np.ndarray = np.asarray(embedder(_probes(shape), training=False), np.float64)
    if not np.isfinite(vectors).all():
        return None
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    signs = 1.0 - 2.0 * (_bytes("signs", vectors.shape[1] * _WIDTH) % 2).reshape(-1, _WIDTH)
    values = vectors @ signs / _WIDTH**0.5
    result: np.ndarray | None = np.clip(np.rint(values * _STEPS), -32768, 32767).astype("<i2").ravel()
    return result


def _probes(shape: list[int]) -> np.ndarray:
    """Return `(8, *shape)`, 0..255: for images, coarse random patches, which look alike at every size."""
    if len(shape) != 3:
        return _bytes("values", _PROBES * int(np.prod(shape))).reshape(_PROBES, *shape).astype(np.float32)
    height, width, channels = shape
    coarse = _bytes("patches", _PROBES * _GRID * _GRID * channels).reshape(_PROBES, _GRID, _GRID, channels)
    rows, columns = (np.arange(side) * _GRID // side for side in (height, width))
    return coarse[:, rows][:, :, columns].astype(np.float32)


def _bytes(name: str, count: int) -> np.ndarray:
    """Return the same numbers 0..255 everywhere and for ever."""
    return np.frombuffer(hashlib.shake_256(f"tf_detreg {name}".encode()).digest(count), np.uint8).astype(np.float64)

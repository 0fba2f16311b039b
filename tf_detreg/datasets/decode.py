"""Deprecated: what stood here is in `tf_detreg.images`."""

import warnings

from tf_detreg import images

_MOVED = {"UnreadableImage", "RandomCrop", "decode"}


def __getattr__(name: str):
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"tf_detreg.datasets.decode.{name} is now tf_detreg.images.{name}.", DeprecationWarning, stacklevel=2)
    return getattr(images, name)

"""Deprecated: what stood here is in `tf_detreg.images.graph`."""

import warnings

from tf_detreg.images import graph


def __getattr__(name: str):
    if name not in ("decode", "decode_batch"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = f"tf_detreg.images.graph.{name}"
    warnings.warn(f"tf_detreg.export.decoding.{name} is now {new}.", DeprecationWarning, stacklevel=2)
    return getattr(graph, name)

"""Deprecated: what stood here is in `tf_detreg.images.graph`."""

from tf_detreg import deprecated

_NAMES = ("decode", "decode_batch")

__getattr__ = deprecated.renamed(__name__, {name: f"tf_detreg.images.graph:{name}" for name in _NAMES})

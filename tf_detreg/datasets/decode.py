"""Deprecated: what stood here is in `tf_detreg.images`."""

from tf_detreg import deprecated

_NAMES = ("RandomCrop", "UnreadableImage", "decode")

__getattr__ = deprecated.renamed(__name__, {name: f"tf_detreg.images:{name}" for name in _NAMES})

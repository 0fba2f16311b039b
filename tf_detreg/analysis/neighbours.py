"""Deprecated: what stood here is in `tf_detreg.analysis.neighbors`."""

from tf_detreg import deprecated

_NEW = "tf_detreg.analysis.neighbors"
_NAMES = {name: f"{_NEW}:{name}" for name in ("STYLE", "across", "pixels", "thumbnail", "within")}

__getattr__ = deprecated.renamed(__name__, {**_NAMES, "Neighbours": f"{_NEW}:Neighbors"})

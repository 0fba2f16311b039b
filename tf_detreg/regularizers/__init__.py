"""Penalties beside the metric loss: each reads what it needs from a small context."""

from tf_detreg.regularizers.base import Context, Regularizer

__all__ = ["Context", "Regularizer"]

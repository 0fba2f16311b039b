"""Writing an embedder for TensorFlow Serving and for phones, and checking what was written."""

from tf_detreg.export.lite import litert
from tf_detreg.export.savedmodel import saved_model
from tf_detreg.export.verification import LIMITS, Limits, Verification, verify

__all__ = ["LIMITS", "Limits", "Verification", "litert", "saved_model", "verify"]

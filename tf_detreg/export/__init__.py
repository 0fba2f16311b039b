"""Writing an embedder for TensorFlow Serving and for phones, and checking what was written."""

from tf_detreg.export.bundles import retrieval_litert, retrieval_saved_model
from tf_detreg.export.cards import model_card, run_results
from tf_detreg.export.inference import fingerprint
from tf_detreg.export.lite import litert
from tf_detreg.export.releasing import Release, release
from tf_detreg.export.runs import export_run
from tf_detreg.export.savedmodel import saved_model
from tf_detreg.export.verification import LIMITS, Limits, Verification, verify

__all__ = [
    "LIMITS",
    "Limits",
    "Release",
    "Verification",
    "export_run",
    "fingerprint",
    "litert",
    "model_card",
    "release",
    "retrieval_litert",
    "retrieval_saved_model",
    "run_results",
    "saved_model",
    "verify",
]

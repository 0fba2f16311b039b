"""Evaluation and search over embeddings: exact when it can be, ScaNN when it must be, never silently wrong."""

from tf_detreg.retrieval.evaluate import evaluate
from tf_detreg.retrieval.find import search
from tf_detreg.retrieval.fingerprint import fingerprint
from tf_detreg.retrieval.matches import Matches
from tf_detreg.retrieval.report import Approximation, RetrievalReport

__all__ = ["Approximation", "Matches", "RetrievalReport", "evaluate", "fingerprint", "search"]


def __getattr__(name: str) -> object:
    if name == "Index":
        import warnings

        from tf_detreg.index import Index

        warnings.warn("retrieval.Index is index.Index now.", DeprecationWarning, stacklevel=2)
        return Index
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

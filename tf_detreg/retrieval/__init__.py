"""Evaluation and search over embeddings: exact when it can be, ScaNN when it must be, never silently wrong."""

from tf_detreg.retrieval.evaluate import evaluate
from tf_detreg.retrieval.find import search
from tf_detreg.retrieval.index import Index, fingerprint
from tf_detreg.retrieval.matches import Matches
from tf_detreg.retrieval.report import Approximation, RetrievalReport

__all__ = ["Approximation", "Index", "Matches", "RetrievalReport", "evaluate", "fingerprint", "search"]

"""Evaluation, search and decisions: exact when it can be, ScaNN when it must be, never silently wrong."""

from tf_detreg import deprecated
from tf_detreg.retrieval.calibration import calibrate, measure
from tf_detreg.retrieval.deciding import Classified
from tf_detreg.retrieval.decision import Decision, Measurement
from tf_detreg.retrieval.density import FlowDensity
from tf_detreg.retrieval.evaluate import evaluate
from tf_detreg.retrieval.find import search
from tf_detreg.retrieval.identity import fingerprint, same_model
from tf_detreg.retrieval.matches import Matches
from tf_detreg.retrieval.monitoring import Drift, monitor
from tf_detreg.retrieval.open_set import OpenSetReport, open_set
from tf_detreg.retrieval.pairs import Pairs, read_pairs
from tf_detreg.retrieval.report import Approximation, RetrievalReport
from tf_detreg.retrieval.verification import VerificationReport, verification

__all__ = [
    "Approximation",
    "Classified",
    "Decision",
    "Drift",
    "FlowDensity",
    "Matches",
    "Measurement",
    "OpenSetReport",
    "Pairs",
    "RetrievalReport",
    "VerificationReport",
    "calibrate",
    "evaluate",
    "fingerprint",
    "measure",
    "monitor",
    "open_set",
    "read_pairs",
    "same_model",
    "search",
    "verification",
]

__getattr__ = deprecated.renamed(__name__, {"Index": "tf_detreg.index:Index"})

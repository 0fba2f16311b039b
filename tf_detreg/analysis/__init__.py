"""Look behind the numbers of an embedder: how much it stretches, which neighbors it finds, a report of a run.

The modules are loaded when they are first used, since some of them need matplotlib or Pillow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tf_detreg import deprecated

if TYPE_CHECKING:
    from tf_detreg.analysis.runs import RunEvaluation, analyze_run, evaluate_run, write_report

_MODULES = ("class_recall", "embedding_map", "inspect", "lipschitz", "neighbors", "report", "run_page")

__all__ = ["RunEvaluation", "analyze_run", "evaluate_run", "write_report", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "neighbours":
        deprecated.warn("analysis.neighbours", "analysis.neighbors")
        name = "neighbors"
    if name in _MODULES:
        return importlib.import_module(f"tf_detreg.analysis.{name}")
    if name in __all__:
        return getattr(importlib.import_module("tf_detreg.analysis.runs"), name)
    raise AttributeError(f"module 'tf_detreg.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

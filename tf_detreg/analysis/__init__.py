"""Look behind the numbers of an embedder: how much it stretches, which neighbors it finds, a report of a run.

The modules are loaded when they are first used, since some of them need matplotlib or Pillow.
"""

import importlib
from types import ModuleType

from tf_detreg import deprecated

_MODULES = ("inspect", "lipschitz", "neighbors", "report", "run_page")

__all__ = [*_MODULES]


def __getattr__(name: str) -> ModuleType:
    if name == "neighbours":
        deprecated.warn("analysis.neighbours", "analysis.neighbors")
        name = "neighbors"
    if name in _MODULES:
        return importlib.import_module(f"tf_detreg.analysis.{name}")
    raise AttributeError(f"module 'tf_detreg.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULES)

"""Look behind the numbers of an embedder: how much it stretches, which neighbors it finds, a report of a run.

The modules are loaded when they are first used, since some of them need matplotlib or Pillow.
"""

import importlib

_MODULES = ("inspect", "lipschitz", "neighbours", "report", "run_page")

__all__ = [*_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"tf_detreg.analysis.{name}")
    raise AttributeError(f"module 'tf_detreg.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

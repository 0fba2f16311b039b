"""What a search in an index found."""

import dataclasses
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Matches:
    """Neighbours of each query, best first.

    Args:
        ids: Q lists of k ids.
        scores: (Q, k) cosines.
        places: (Q, k) positions among the index's ids.
        metadata: Q lists of k mappings.
        engine: `"exact"` or `"scann"`.
        neighbour_recall: Measured share of the true neighbours that the engine finds; 1 for exact search.
        notice: Why another engine answered than the one asked for, or None.
        accepted: (Q, k) whether a match counts, by a `Decision`; None without one.
        probabilities: (Q, k) that the item is of the query's class, by a `Decision`; None without one.
    """

    ids: list[list[str | int]]
    scores: np.ndarray
    places: np.ndarray
    metadata: list[list[dict[str, object]]]
    engine: str
    neighbour_recall: float
    notice: str | None
    accepted: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> Iterator[dict[str, object]]:
        """One mapping a match: query, rank, id, score, what was decided, and the item's metadata; for JSON lines."""
        for query, (ids, scores, items) in enumerate(zip(self.ids, self.scores, self.metadata, strict=True)):
            for rank, (id, score, item) in enumerate(zip(ids, scores, items, strict=True), 1):
                row = {"query": query, "rank": rank, "id": id, "score": round(float(score), 6)}
                if self.accepted is not None:
                    row["probability"] = round(float(self.probabilities[query, rank - 1]), 4)
                    row["accepted"] = bool(self.accepted[query, rank - 1])
                yield row | item

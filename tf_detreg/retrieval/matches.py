"""What a search in an index found."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tf_detreg.retrieval.index import Index


@dataclasses.dataclass(frozen=True)
class Matches:
    """Neighbours of each query, best first.

    Args:
        ids: Q lists of k ids.
        scores: (Q, k) cosines.
        places: (Q, k) row numbers in the index.
        metadata: Q lists of k mappings.
        engine: `"exact"` or `"scann"`.
        neighbour_recall: Measured share of the true neighbours that the engine finds; 1 for exact search.
        notice: Why another engine answered than the one asked for, or None.
    """

    ids: list[list[str | int]]
    scores: np.ndarray
    places: np.ndarray
    metadata: list[list[dict[str, object]]]
    engine: str
    neighbour_recall: float
    notice: str | None

    @classmethod
    def of(
        cls, index: "Index", places: np.ndarray, scores: np.ndarray, engine: str, recall: float, notice: str | None
    ) -> "Matches":
        """Look the places up in the index."""
        ids = [[index._ids[place] for place in row] for row in places]
        metadata = [[dict(index._metadata[place]) for place in row] for row in places]
        return cls(ids, scores, places, metadata, engine, recall, notice)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> Iterator[dict[str, object]]:
        """One mapping a match: query, rank, id, score and the item's metadata; for tables and JSON lines."""
        for query, (ids, scores, items) in enumerate(zip(self.ids, self.scores, self.metadata, strict=True)):
            for rank, (id, score, item) in enumerate(zip(ids, scores, items, strict=True), 1):
                yield {"query": query, "rank": rank, "id": id, "score": round(float(score), 6), **item}

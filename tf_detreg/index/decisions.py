"""The decision that an index keeps, and searches that use one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_detreg.index.filters import Where, parse
from tf_detreg.index.searching import Searcher
from tf_detreg.index.store import Store
from tf_detreg.retrieval import deciding
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.matches import Matches

FACT = "decision"  # its name in the store


class Decider:
    """Reads and writes the decision of an index, and searches with one.

    Args:
        store: Of the index.
        searcher: Of the index.
    """

    def __init__(self, store: Store, searcher: Searcher) -> None:
        self._store, self._searcher = store, searcher
        self._known: tuple[object, Decision | None] = (None, None)

    @property
    def decision(self) -> Decision | None:
        """Return what the index keeps; None where there is none."""
        content: Mapping[str, Any] | None = self._store.snapshot().facts.get(FACT)
        if self._known[0] is not content:
            self._known = content, None if content is None else Decision.from_dict(content)
        return self._known[1]

    def keep(self, decision: Decision | None) -> None:
        """Write a decision, in one transaction.

        Raises:
            ValueError: If it is none, or another model's.
        """
        if decision is not None:
            if not isinstance(decision, Decision):
                raise ValueError(f"`decision` must be a `retrieval.Decision` or None; received {decision!r:.80}.")
            decision.refuse_other_model(self._store.snapshot().facts["model"])
        with self._store.changing() as change:
            change.set(FACT, None if decision is None else decision.to_dict())

    def search(
        self,
        queries: np.ndarray,
        k: int,
        where: Where | None,
        engine: str,
        progress: bool | None,
        decision: Decision | None,
    ) -> Matches:
        """Search, and say which matches count; arguments as for `Index.search`.

        Raises:
            ValueError: If the decision is another model's, or on a score that an index cannot compute.
        """
        decision = decision or self.decision
        if decision is None:
            return self._searcher.search(queries, k, where, engine, progress)
        decision.refuse_other_model(self._store.snapshot().facts["model"])
        needed = k if decision.score == "nearest" else deciding.depth(decision, k, self._count(where))
        return deciding.decided(self._searcher.search(queries, needed, where, engine, progress), decision, k)

    def _count(self, where: Where | None) -> int:
        """Return how many items can be found."""
        state = self._store.snapshot()
        rows = self._store.rows_where(parse(where), state.version) if where else None
        return state.live if rows is None else len(rows)

"""Which engine answers a search in an index, and that it answers from one state of it."""

import numpy as np

from tf_detreg import checks
from tf_detreg.index import nearest, segments, tables, trees
from tf_detreg.index.filters import Filter, Where, parse, unknown
from tf_detreg.index.snapshot import Snapshot
from tf_detreg.index.store import Store
from tf_detreg.index.tuning import Tuner
from tf_detreg.retrieval import approximate, inputs
from tf_detreg.retrieval.matches import Matches

SCANN_FROM = 50_000  # items; below, exact search answers one query within some milliseconds
ENGINES = ("auto", "exact", *trees.ENGINES)
_LOOSE = 0.1  # share of the items that a filter must keep for a tree to be quicker than exact search over the rows
_TRIES = 10


class Searcher:
    """Answers queries.

    Args:
        store: Of the index.
        tuner: Has its tree.
    """

    def __init__(self, store: Store, tuner: Tuner) -> None:
        self._store, self._tuner = store, tuner

    def search(self, queries: np.ndarray, k: int, where: Where | None, engine: str, progress: bool | None) -> Matches:
        """Find the k nearest items of (Q, dim) float32 unit rows; arguments as for `Index.search`.

        Raises:
            ValueError: If `engine` or `where` is none, or `k` is larger than what can be found.
            TimeoutError: If the index changes all the time.
        """
        if engine not in ENGINES:
            raise ValueError(f"`engine` must be {checks.listed(ENGINES)}; received {engine!r}.")
        kept = parse(where) if where else None
        for _ in range(_TRIES):
            matches = self._attempt(queries, k, kept, where, engine, progress)
            if matches is not None:
                return matches
        # Writers are quicker than this search: it takes one state and keeps it.
        with self._store.holding():
            matches = self._attempt(queries, k, kept, where, "exact", progress)
        if matches is None:
            raise TimeoutError("The index changes faster than it can be searched; try again.")
        return matches

    def _attempt(
        self, queries: np.ndarray, k: int, kept: Filter | None, where: object, engine: str, progress: bool | None
    ) -> Matches | None:
        """Return what is found in the present state; None where a writer has changed it meanwhile."""
        state = self._store.snapshot()
        width = int(state.facts["dimension"])
        if queries.shape[1] != width:  # the index went to another model since the queries were checked
            raise ValueError(f"`queries` have {queries.shape[1]} dimensions and the index has {width}.")
        rows = None
        if kept is not None:
            rows = self._store.rows_where(kept, state.version)
            if rows is None:
                return None
        count = state.live if rows is None else len(rows)
        if count == 0:
            what = "The index is empty" if kept is None else f"`where`={where!r} matches no item of the index"
            hint = "" if kept is None else unknown(kept, tables.fields(self._store))
            raise ValueError(f"{what}: there is nothing to find.{hint}")
        (k,) = inputs.ranks_at(k, count)
        state, found, name, recall, notice = self._by_engine(state, queries, k, rows, engine, progress)
        items = self._store.items(np.unique(found.rows), state.version)
        if items is None:
            return None
        listed = [[items[int(row)] for row in line] for line in found.rows]
        ids = [[id for id, _ in line] for line in listed]
        metadata = [[facts for _, facts in line] for line in listed]
        places = segments.positions(state.parts, found.rows)
        return Matches(ids, found.scores, places, metadata, name, recall, notice)

    def _by_engine(
        self,
        state: Snapshot,
        queries: np.ndarray,
        k: int,
        rows: np.ndarray | None,
        engine: str,
        progress: bool | None,
    ) -> tuple[Snapshot, nearest.Found, str, float, str | None]:
        notice = None
        loose = rows is None or len(rows) >= _LOOSE * state.live
        has_one = state.tree is not None and state.live >= approximate.SMALLEST_GALLERY
        if engine in trees.ENGINES or (engine == "auto" and loose and (has_one or state.live >= SCANN_FROM)):
            notice = _no_tree(state.live, loose)
            if notice is None:
                try:
                    ready = self._tuner.ready(state, k, progress, engine)
                except trees.NoEngine as error:
                    return state, nearest.exactly(state.parts, queries, k, rows, progress), "exact", 1.0, str(error)
                state = ready.state
                found = nearest.by_tree(ready.tuned.tree, state.parts, ready.base, queries, k, rows, progress)
                if found is not None:
                    return state, found, ready.engine, self._tuner.recall(state, ready), None
                notice = "The search tree listed too few of the items that may be found; exact search answered instead."
        return state, nearest.exactly(state.parts, queries, k, rows, progress), "exact", 1.0, notice


def _no_tree(count: int, loose: bool) -> str | None:
    if not loose:
        return "Exact search was used: the filter keeps few items."
    if count < approximate.SMALLEST_GALLERY:
        return f"Exact search was used: {count} items are too few for a search tree."
    return None

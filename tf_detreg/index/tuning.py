"""The searcher of an index through its changes: when it is built, kept, used, and how good it still is."""

import threading

import numpy as np

from tf_detreg.index import changes, nearest, segments, trees
from tf_detreg.index.segments import Segment
from tf_detreg.index.snapshot import Snapshot
from tf_detreg.index.store import Store
from tf_detreg.retrieval import approximate, codes

_SHALLOWEST = 10  # neighbors it is tuned for at least, so that a search a little deeper does not build it again
_MOST = 0.9  # share of the items that one segment must hold for a tree over it to be worth while
_WORN = 0.01  # share of the items that may change before the recall is measured again
_SAMPLE = 200


class Tuner:
    """Builds the searcher of an index and keeps it in memory and on disk.

    Args:
        store: Of the index.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._loaded: dict[str, approximate.Calibrated | None] = {}
        self._measured: dict[tuple[str, int], float] = {}

    def ready(
        self, state: Snapshot, k: int, progress: bool | None, engine: str = "auto"
    ) -> tuple[approximate.Calibrated, Segment, Snapshot]:
        """Return a searcher that is deep enough, the segment that it sorts, and a state of the index that has both.

        Args:
            state: The state that the search began with.
            k: How many neighbors are asked for.
            progress: Whether to show progress where one must be built; None shows it in a terminal.
            engine: One of `trees.ENGINES`. Default `"auto"`: the one that is there, or else the better one.

        Raises:
            trees.NoEngine: If none can be built.
        """
        with self._lock:
            tuned, base = self.present(state), self.base(state)
            depth = min(max(k, _SHALLOWEST), state.live - 1)
            fits = state.tree is not None and engine in ("auto", trees.engine_of(state.tree))
            if tuned is None or base is None or not fits or tuned.depth < min(k, depth):
                layout = self.layout(state) if engine == "auto" else None
                if layout is None and not trees.usable(engine):
                    raise trees.NoEngine(trees.build_reasons(engine))
                state = self._in_one_piece(state)
                base = max(state.parts, key=lambda part: part.count)
                depth = min(depth, base.count - 1)
                if layout is not None and state.tree is not None:
                    engine = layout.kind
                    tuned = trees.compress(base, depth, layout, float(state.tree["target"]), progress)
                else:
                    engine, tuned = trees.build(base, depth, progress, engine)
                self.keep(engine, tuned)
                state = self._store.snapshot()
            return tuned, base, state

    def compress(
        self, layout: codes.Layout, k: int, target: float, progress: bool | None = None
    ) -> approximate.Calibrated:
        """Compress the vectors for the search, in place of the searcher that is there.

        Args:
            layout: How.
            k: The deepest search that it is meant for.
            target: Share of the true neighbors to find.
            progress: Whether to show progress; None shows it in a terminal.
        """
        with self._lock:
            state = self._in_one_piece(self._store.snapshot())
            base = max(state.parts, key=lambda part: part.count)
            tuned = trees.compress(base, min(k, base.count - 1), layout, target, progress)
            self.keep(layout.kind, tuned, target)
        return tuned

    def layout(self, state: Snapshot) -> codes.Layout | None:
        """Return how the vectors are compressed for the search; None where they are not."""
        if state.tree is None or trees.engine_of(state.tree) not in codes.KINDS:
            return None
        return codes.Layout(trees.engine_of(state.tree), state.tree["dimensions"])

    def present(self, state: Snapshot) -> approximate.Calibrated | None:
        """Return the searcher that the index has; None where it has none, or none that can be used here."""
        base = self.base(state)
        if base is None or state.tree is None:
            return None
        key = str(state.tree["folder"])
        if key not in self._loaded:
            loaded = None
            if self._store.directory is not None and self._usable(state):
                loaded = trees.load(self._store.directory, base, state.tree)
            self._loaded = {key: loaded}
        return self._loaded[key]

    def _usable(self, state: Snapshot) -> bool:
        engine = trees.engine_of(state.tree or {})
        return engine not in trees.ENGINES or trees.available(engine) is None

    def base(self, state: Snapshot) -> Segment | None:
        """Return the segment that the tree sorts."""
        number = None if state.tree is None else state.tree["segment"]
        return next((part for part in state.parts if part.number == number), None)

    def keep(self, engine: str, tuned: approximate.Calibrated, target: float | None = None) -> None:
        """Store a searcher over the largest segment with the index."""
        directory = self._store.directory
        with self._store.changing() as change:
            state = change.before
            base = max(state.parts, key=lambda part: part.count)
            if directory is not None:
                facts = trees.save(directory, base, engine, tuned)
            else:
                facts = {"segment": base.number, "folder": f"{base.number}-{tuned.depth}-{engine}", "engine": engine}
                facts |= tuned.facts()
            if isinstance(tuned.tree, codes.Codes):
                shape = {"dimensions": tuned.tree.layout.dimensions, "bytes": tuned.tree.bytes_an_item}
                facts |= {**shape, "target": trees.TARGET if target is None else target}
            change.set("tree", {**facts, "live": state.live, "end": state.end})
        self._loaded = {str(facts["folder"]): tuned}
        if directory is not None:
            trees.drop_others(directory, facts)

    def forget(self) -> None:
        """Drop the tree that is in memory, and the files that the index no longer names."""
        self._loaded = {}
        if self._store.directory is not None:
            trees.drop_others(self._store.directory, self._store.snapshot().tree)

    def recall(self, state: Snapshot, tuned: approximate.Calibrated, base: Segment) -> float:
        """Return the share of the true neighbors that are found.

        What was measured when the tree was tuned holds until a hundredth of the items has changed; then it is measured
        again.
        """
        if state.tree is None:
            return tuned.recall
        added = state.end - int(state.tree["end"])
        removed = int(state.tree["live"]) + added - state.live
        step = int((added + removed) / max(_WORN * state.live, 1))
        if step == 0:
            return tuned.recall
        key = (str(state.tree["folder"]), step)
        if key not in self._measured:
            self._measured = {key: _measure(state, tuned, base)}
        return self._measured[key]

    def words(self, state: Snapshot) -> str:
        """Return how searches are answered, in words."""
        if state.tree is None:
            return "exact"
        engine, recall = trees.engine_of(state.tree), state.tree.get("recall")
        said = {"scann": "ScaNN"}.get(engine, engine)
        if "bytes" in state.tree:
            said += f", {state.tree['bytes']:g} bytes an item in memory"
        if recall is not None:
            said += f", {100 * float(recall):.2f} % of the true neighbors when it was built"
        return said

    def _in_one_piece(self, state: Snapshot) -> Snapshot:
        """Merge the segments, where no one of them holds most of the items."""
        if max(part.count for part in state.parts) < _MOST * state.live:
            with self._store.changing() as change:
                changes.merge(change, change.before.parts)
        return self._store.snapshot()


def _measure(state: Snapshot, tuned: approximate.Calibrated, base: Segment) -> float:
    """Return what share of their true neighbors some items find, apart from themselves."""
    rows = np.concatenate([some for some, _ in segments.live_blocks(state.parts)])
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:_SAMPLE])
    sample = segments.take(state.parts, chosen)
    k = min(tuned.depth + 1, state.live)
    found = nearest.by_tree(tuned.tree, state.parts, base, sample, k)
    if found is None:
        return 0.0
    kth = nearest.exactly(state.parts, sample, k).scores[:, -1:]
    return float(((found.scores >= kth - approximate.ROUNDING).sum(axis=1) - 1).mean() / max(k - 1, 1))

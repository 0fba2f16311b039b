"""The searcher of an index through its changes: when it is built, kept, used, and how good it still is."""

import logging
import threading
from typing import NamedTuple

import numpy as np

from tf_detreg.index import changes, nearest, segments, trees
from tf_detreg.index.segments import Segment
from tf_detreg.index.snapshot import Snapshot
from tf_detreg.index.store import Store
from tf_detreg.retrieval import approximate, choosing, codes, product
from tf_detreg.retrieval.report import named

logger = logging.getLogger(__name__)
_SHALLOWEST = 10  # neighbors it is tuned for at least, so that a search a little deeper does not build it again
_MOST = 0.9  # share of the items that one segment must hold for a tree over it to be worth while
_WORN = 0.01  # share of the items that may change before the recall is measured again
_SAMPLE = 200


class Ready(NamedTuple):
    """A searcher that can answer.

    Args:
        tuned: The searcher.
        base: The segment that it sorts.
        engine: Its engine or kind.
        live: Items that the index had when it was tuned.
        end: Row number of the next item, then.
        state: Of the index, which has `base`.
    """

    tuned: approximate.Calibrated
    base: Segment
    engine: str
    live: int
    end: int
    state: Snapshot


class Tuner:
    """Builds the searcher of an index and keeps it in memory and on disk.

    Args:
        store: Of the index.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._loaded: dict[str, approximate.Calibrated | None] = {}
        self._beside: dict[str, Ready] = {}  # searchers of this process alone, by the engine that was asked for
        self._measured: tuple[approximate.Calibrated, int, float] | None = None

    def ready(
        self, state: Snapshot, k: int, progress: bool | None, engine: str = "auto", *, replace: bool = False
    ) -> Ready:
        """Return a searcher that is deep enough.

        Where the index keeps none, or one that is not deep enough, one is built and kept. A kept one that another
        engine made stays: what is built is then of this process alone.

        Args:
            state: The state that the search began with.
            k: How many neighbors are asked for.
            progress: Whether to show progress where one must be built; None shows it in a terminal.
            engine: One of `trees.ENGINES`. Default `"auto"`: the one that is there, or else the better one.
            replace: Whether the one that is built takes the place of a kept one, whatever that is. Default False.

        Raises:
            trees.NoEngine: If none can be built, or the kept one can be used by others only and may not be replaced.
        """
        with self._lock:
            depth = min(max(k, _SHALLOWEST), state.live - 1)
            kept = self._kept(state)
            fits = state.tree is not None and engine in ("auto", trees.engine_of(state.tree))
            for found in (kept if fits else None, None if replace else self._own(state, engine)):
                if found is not None and found.tuned.depth >= min(k, depth):
                    return found
            refused = None if state.tree is None else trees.refusal(state.tree)
            if not replace and fits and refused is not None:
                raise trees.NoEngine(refused)
            return self._built(state, depth, progress, engine, keep=replace or fits or state.tree is None)

    def _built(self, state: Snapshot, depth: int, progress: bool | None, asked: str, keep: bool) -> Ready:
        """Build a searcher, and keep it with the index or for this process alone."""
        kept = None if state.tree is None or trees.refusal(state.tree) is not None else state.tree
        layout = None if kept is None or asked != "auto" else self.layout(state)
        engine = asked if kept is None or asked != "auto" else trees.engine_of(kept)
        if layout is None and not choosing.usable(engine):
            raise trees.NoEngine(choosing.reasons(engine))
        if keep:
            try:
                state = self._in_one_piece(state)
            except OSError as error:
                keep = _unwritten(error)
        base = (None if keep else self.base(state)) or max(state.parts, key=lambda part: part.count)
        depth = min(depth, base.count - 1)
        if layout is None or kept is None:
            target = None
            engine, tuned = trees.build(base, depth, progress, engine)
        else:
            target = float(kept["target"])
            tuned = trees.compress(base, depth, layout, target, progress)
        if keep:
            try:
                self.keep(engine, tuned, layout=layout, target=target)
                state = self._store.snapshot()
            except OSError as error:
                keep = _unwritten(error)
        made = Ready(tuned, base, engine, state.live, state.end, state)
        if not keep:
            self._beside[asked] = made
        return made

    def _kept(self, state: Snapshot) -> Ready | None:
        """Return the searcher that the index keeps; None where it has none, or none that can be used here."""
        tuned, base = self.present(state), self.base(state)
        if tuned is None or base is None or state.tree is None:
            return None
        live, end = int(state.tree["live"]), int(state.tree["end"])
        return Ready(tuned, base, trees.engine_of(state.tree), live, end, state)

    def _own(self, state: Snapshot, engine: str) -> Ready | None:
        """Return the searcher of this process alone; None where there is none over vectors that the index still has."""
        found = self._beside.get(engine)
        if found is None:
            return None
        base = next((part for part in state.parts if part.number == found.base.number), None)
        return None if base is None else found._replace(base=base, state=state)

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
            self.keep(layout.kind, tuned, layout=layout, target=target)
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
            if self._store.directory is not None and trees.refusal(state.tree) is None:
                loaded = trees.load(self._store.directory, base, state.tree)
            self._loaded = {key: loaded}
        return self._loaded[key]

    def base(self, state: Snapshot) -> Segment | None:
        """Return the segment that the tree sorts."""
        number = None if state.tree is None else state.tree["segment"]
        return next((part for part in state.parts if part.number == number), None)

    def keep(
        self,
        engine: str,
        tuned: approximate.Calibrated,
        *,
        layout: codes.Layout | None = None,
        target: float | None = None,
    ) -> None:
        """Store a searcher over the largest segment with the index, in place of the one that it keeps.

        Args:
            engine: Its engine or kind.
            tuned: The searcher.
            layout: How it compresses; None where it does not.
            target: Share of the true neighbors that it was to find. Default: `trees.TARGET`.
        """
        directory = self._store.directory
        with self._store.changing() as change:
            state = change.before
            base = max(state.parts, key=lambda part: part.count)
            if directory is not None:
                facts = trees.save(directory, base, engine, tuned)
            else:
                facts = {"segment": base.number, "folder": f"{base.number}-{tuned.depth}-{engine}", "engine": engine}
                facts |= tuned.facts()
            if layout is not None and isinstance(tuned.tree, codes.Codes | product.Product):
                shape = {"dimensions": layout.dimensions, "bytes": tuned.tree.bytes_an_item}
                facts |= {**shape, "target": trees.TARGET if target is None else target}
            change.set("tree", {**facts, "live": state.live, "end": state.end})
            if state.tree is not None and trees.engine_of(state.tree) != engine:
                before, now = named(trees.engine_of(state.tree)), named(engine)
                logger.warning("The index's searcher of %s was replaced by one of %s.", before, now)
        self._loaded = {str(facts["folder"]): tuned}
        if directory is not None:
            trees.drop_others(directory, facts)

    def forget(self) -> None:
        """Drop the tree that is in memory, and the files that the index no longer names."""
        self._loaded, self._beside = {}, {}
        if self._store.directory is not None:
            trees.drop_others(self._store.directory, self._store.snapshot().tree)

    def recall(self, state: Snapshot, ready: Ready) -> float:
        """Return the share of the true neighbors that are found.

        What was measured when the searcher was tuned holds until a hundredth of the items has changed; then it is
        measured again.
        """
        added = state.end - ready.end
        removed = ready.live + added - state.live
        step = int((added + removed) / max(_WORN * state.live, 1))
        if step == 0:
            return ready.tuned.recall
        tuned, at, share = self._measured or (None, 0, 0.0)
        if tuned is not ready.tuned or at != step:
            share = _measure(state, ready.tuned, ready.base)
            self._measured = ready.tuned, step, share
        return share

    def words(self, state: Snapshot) -> str:
        """Return how searches are answered, in words."""
        if state.tree is None:
            return "exact"
        engine, recall = trees.engine_of(state.tree), state.tree.get("recall")
        said = named(engine)
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


def _unwritten(error: OSError) -> bool:
    """Return False, and say in the log that a searcher is of this process alone: a search must not fail for that."""
    logger.warning("The search tree cannot be kept with the index (%s): this process alone uses it.", error)
    return False


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

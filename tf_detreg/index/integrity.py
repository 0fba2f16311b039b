"""Everything in an index against its checksums."""

from collections.abc import Callable

from tf_detreg.index import segments, trees
from tf_detreg.index.store import FILE, Store
from tf_detreg.progress import ticker


def verify(store: Store, progress: bool | None = False) -> None:
    """Read all items and vectors of one state.

    Args:
        store: Of the index.
        progress: Whether to show progress, in items; None shows it in a terminal. Default False.

    Raises:
        ValueError: If something is missing or not as it was written.
    """
    with store.holding():
        state = store.snapshot()
        # Metadata and vectors of an item are read one after the other; in memory there are no vectors to read again.
        total = state.live * (1 if store.directory is None else 2)
        with ticker("Verifying", total, progress) as tick:
            _verify_items(store, state.live, tick)
            if store.directory is None:
                return
            for part in state.parts:
                segments.check(store.directory, part)
                tick(part.live)
        if state.tree is not None:
            trees.verify(store.directory, state.tree)


def _verify_items(store: Store, expected: int, tick: Callable[[int], None]) -> None:
    problems = store.query("PRAGMA quick_check(1)") or []
    if problems != [("ok",)]:
        raise segments.damaged(store.directory, f"{FILE}: {problems}")
    count = 0
    for _, *item in store.stored():
        store.item(*item)
        count += 1
        tick(1)
    if count != expected:
        raise segments.damaged(store.directory, f"{count} items for {expected} vectors")

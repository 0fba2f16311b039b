"""Everything in an index against its checksums."""

from tf_detreg.index import segments, trees
from tf_detreg.index.store import FILE, Store


def verify(store: Store) -> None:
    """Read all items and vectors of one state.

    Raises:
        ValueError: If something is missing or not as it was written.
    """
    with store.holding():
        state = store.snapshot()
        _verify_items(store, state.live)
        if store.directory is None:
            return
        for part in state.parts:
            segments.check(store.directory, part)
        if state.tree is not None:
            trees.verify(store.directory, state.tree)


def _verify_items(store: Store, expected: int) -> None:
    problems = store.query("PRAGMA quick_check(1)") or []
    if problems != [("ok",)]:
        raise segments.damaged(store.directory, f"{FILE}: {problems}")
    count = 0
    for _, *item in store.stored():
        store.item(*item)
        count += 1
    if count != expected:
        raise segments.damaged(store.directory, f"{count} items for {expected} vectors")

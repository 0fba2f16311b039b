"""What a change does to the items and segments of an index; all of it inside one transaction."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from tf_detreg.index import segments
from tf_detreg.index.change import Change
from tf_detreg.index.items import Id, metadata_texts, plain_ids
from tf_detreg.index.segments import Segment
from tf_detreg.index.store import Store
from tf_detreg.progress import ticker


def append(
    change: Change,
    vectors: np.ndarray,
    ids: Sequence[Id] | None,
    metadata: Sequence[Mapping[str, object]] | None,
    replace: bool,
) -> int:
    """Add items.

    Args:
        change: The change.
        vectors: (n, dim) float32 unit rows.
        ids: n different ids. Default: the next integers.
        metadata: n mappings. Default: empty ones.
        replace: Whether an item of the same id is replaced; else it is an error.

    Returns:
        How many were replaced.

    Raises:
        ValueError: If ids or metadata do not fit, or an id is taken.
    """
    first = change.state().end
    plain = plain_ids(range(first, first + len(vectors)) if ids is None else ids, len(vectors))
    texts = metadata_texts(metadata, len(vectors))
    present = change.present(plain)
    if present and not replace:
        raise ValueError(
            f"`ids` must all differ; received {next(iter(present))!r}, which occurs twice: the index holds it already."
        )
    if present:
        change.remove(present.values())
    change.append(plain, texts, vectors)
    return len(present)


def merge_small(change: Change) -> None:
    """Merge the last segments until each is twice as large as all that follow: there are never more than dozens."""
    state = change.state()
    base = None if state.tree is None else state.tree["segment"]
    tail: list[Segment] = []
    for part in reversed(state.parts):
        if part.number == base or (tail and part.count > 2 * sum(one.count for one in tail)):
            break
        tail.insert(0, part)
    merge(change, tail)


def merge(change: Change, parts: Sequence[Segment]) -> None:
    """Write neighboring segments as one; every item keeps its row."""
    if len(parts) < 2:
        return
    masks = [np.zeros(part.count, bool) if part.removed is None else part.removed for part in parts]
    change.drop_segments(parts)
    change.add_segment(parts[0].start, sum(part.count for part in parts), _all_rows(parts), np.concatenate(masks))


def compact(change: Change, progress: bool | None = False) -> None:
    """Write all vectors that are left in one piece, with new rows behind the old ones."""
    rows = [row for (row,) in change.connection.execute("SELECT row FROM items ORDER BY row")]
    with ticker("Compacting", len(rows), progress) as tick:
        rewrite(change, rows, _ticked(segments.live_blocks(change.before.parts), tick))


def rewrite(change: Change, rows: Sequence[int], blocks: Iterable[np.ndarray]) -> None:
    """Put new vectors in the place of all that are there, with new rows behind the old ones.

    Args:
        change: The change.
        rows: The rows of all items, ascending.
        blocks: Their vectors, in pieces, in this order.
    """
    state = change.before
    change.drop_segments(state.parts)
    if rows:
        change.add_segment(state.end, len(rows), blocks)
        pairs = ((state.end + at, row) for at, row in enumerate(rows))
        change.connection.executemany("UPDATE items SET row = ? WHERE row = ?", pairs)
    change.set("end", state.end + len(rows))
    change.set("tree", None)


def _ticked(blocks: Iterable[tuple[np.ndarray, np.ndarray]], tick: Callable[[int], None]) -> Iterator[np.ndarray]:
    for _, vectors in blocks:
        yield vectors
        tick(len(vectors))


def copy(change: Change, source: Store) -> None:
    """Put everything that another index holds in place of what is there.

    Args:
        change: Of the index that is written.
        source: The other one, which must be held in one state meanwhile.
    """
    state, start = source.snapshot(), change.before.end
    change.connection.execute("DELETE FROM items")
    change.drop_segments(change.before.parts)
    for name in ("dimension", "model", "decision"):
        change.set(name, state.facts.get(name))
    change.set("tree", None)
    if state.live:
        change.add_segment(start, state.live, (vectors for _, vectors in segments.live_blocks(state.parts)))
    rows = ((row, *item) for row, (_, *item) in enumerate(source.stored(), start))
    change.connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
    change.set("end", start + state.live)
    change.index_fields(state.fields)


def _all_rows(parts: Sequence[Segment]) -> Iterator[np.ndarray]:
    for part in parts:
        for low in range(0, part.count, segments.BLOCK):
            yield part.vectors[low : low + segments.BLOCK]

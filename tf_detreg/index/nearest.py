"""The nearest items of one state of an index: exact search over its segments, and a tree with what changed since."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tf_detreg.index import segments
from tf_detreg.index.segments import Segment
from tf_detreg.retrieval import approximate, exact
from tf_detreg.retrieval.rescoring import Rescoring

_SPARE = 1.3  # more neighbors are asked of a tree than the share of allowed items suggests
_TRIES = 3


class Found(NamedTuple):
    """Row numbers (Q, k) and cosines (Q, k), best first; equal scores by row."""

    rows: np.ndarray
    scores: np.ndarray


def exactly(
    parts: Sequence[Segment], queries: np.ndarray, k: int, rows: np.ndarray | None = None, progress: bool | None = False
) -> Found:
    """Search all items, or those of the given ascending rows, by exact search.

    Args:
        parts: The segments.
        queries: (Q, dim) float32 unit rows.
        k: How many, at most as many as there are.
        rows: Row numbers to look at. Default: all items.
        progress: Whether to show a progress bar; None shows it in a terminal. Default False.
    """
    best: Found | None = None
    for places, vectors, removed in _pieces(parts, rows):
        count = len(vectors) if removed is None else int(np.count_nonzero(~removed))
        if count:
            ids, scores = exact.search(queries, vectors, min(k, count), progress=progress, left_out=removed)
            best = merged([found for found in (best, Found(places[ids], scores)) if found is not None], k)
    if best is None:
        return Found(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
    return best


def _pieces(
    parts: Sequence[Segment], rows: np.ndarray | None
) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield row numbers, vectors and which of them were removed: given rows by blocks, else segments as they lie.

    A segment is not copied where some of it was removed: that takes much longer than to compare the removed rows, too.
    """
    if rows is None:
        yield from ((np.arange(part.start, part.end), part.vectors, part.removed) for part in parts)
    else:
        for some in np.array_split(rows, max(1, -(-len(rows) // segments.BLOCK))):
            yield some, segments.take(parts, some), None


def merged(found: Sequence[Found], k: int) -> Found:
    """Return the k best of several results; those that come first have the lower rows."""
    rows = np.concatenate([one.rows for one in found], axis=1)
    scores = np.concatenate([one.scores for one in found], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return Found(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))


def by_tree(
    tree: "approximate.Tree | Rescoring",
    parts: Sequence[Segment],
    base: Segment,
    queries: np.ndarray,
    k: int,
    rows: np.ndarray | None = None,
    progress: bool | None = False,
) -> Found | None:
    """Search a tree over one segment and, exactly, all other segments.

    Items of the tree that were removed, or that a filter drops, are asked for and passed over.

    Args:
        tree: Over the vectors of `base`.
        parts: All segments.
        base: The one that the tree sorts.
        queries: (Q, dim) float32 unit rows.
        k: How many.
        rows: Ascending row numbers that a filter keeps. Default: all.
        progress: As for `exactly`.

    Returns:
        What was found; None where the tree listed too few items that are allowed.
    """
    allowed, count = base.kept, base.live
    if rows is not None:
        low, high = np.searchsorted(rows, [base.start, base.end])
        allowed = np.zeros(base.count, bool)
        allowed[rows[low:high] - base.start] = True
        allowed &= base.kept
        count = int(np.count_nonzero(allowed))
    others = [part for part in parts if part.number != base.number]
    outside = None if rows is None else rows[(rows < base.start) | (rows >= base.end)]
    rest = exactly(others, queries, k, outside)
    wanted = min(k, count)
    if wanted == 0:
        return rest
    ask = wanted if count == base.count else min(base.count, int(_SPARE * wanted * base.count / count) + 10)
    for _ in range(_TRIES):
        # Neighbors that lie further away lie in more leaves.
        found = _allowed(tree, queries, ask, wanted, allowed, base.start, ask / wanted, progress)
        if found is not None:
            return merged(sorted((rest, found), key=lambda one: one.rows.min(initial=0)), k)
        ask = min(base.count, 4 * ask)
    return None


def _allowed(
    tree: "approximate.Tree | Rescoring",
    queries: np.ndarray,
    ask: int,
    k: int,
    allowed: np.ndarray,
    start: int,
    wider: float,
    progress: bool | None,
) -> Found | None:
    places, scores = tree.search(queries, ask, progress=progress, wider=wider)
    keep = (places >= 0) & allowed[np.maximum(places, 0)]
    if (keep.sum(axis=1) < k).any():
        return None
    scores = np.where(keep, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Found(np.take_along_axis(places, order, axis=1) + start, np.take_along_axis(scores, order, axis=1))

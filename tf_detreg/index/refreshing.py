r"""An index that moves to another model, in one step.

Items that could be embedded again get their new vectors. The others, whose pictures are gone, are mapped by the
orthogonal matrix that best takes old vectors to new ones on the items that have both,

\[W = \arg\min_{W^\top W = I} \lVert X W - Y \rVert_F = U V^\top,\quad X^\top Y = U \Sigma V^\top .\]

What that loses is measured: W is fitted on half of them, and on the other half it is counted how many of the nearest
neighbors among new vectors are found among mapped ones.

Reference:
    Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_detreg.index import changes, segments
from tf_detreg.index.change import Change
from tf_detreg.index.items import Id, crc_of
from tf_detreg.retrieval import exact

_MOST = 20_000  # pairs that the map is fitted on, and as many that it is measured on
_QUERIES = 1_000


class Refreshed(NamedTuple):
    """What a refresh did.

    Args:
        embedded: How many items have vectors of the new model.
        mapped: How many were mapped.
        loss: Measured share of the true neighbors among mapped items that is lost; None where none was mapped.
    """

    embedded: int
    mapped: int
    loss: float | None


def orthogonal_map(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the (d, e) matrix of orthonormal columns or rows that best takes the rows of `old` to those of `new`.

    Args:
        old: (n, d).
        new: (n, e).

    Example:
        >>> turn = np.asarray([[0.0, 1.0], [-1.0, 0.0]])
        >>> x = np.random.default_rng(0).standard_normal((9, 2))
        >>> bool(np.allclose(orthogonal_map(x, x @ turn), turn))
        True
    """
    left, _, right = np.linalg.svd(np.asarray(old, np.float64).T @ np.asarray(new, np.float64), full_matrices=False)
    return np.asarray(left @ right, np.float32)


def mapped(old: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return unit rows (n, e) of old vectors (n, d) by a map (d, e)."""
    rows = old @ turn
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny))


def loss_of_map(old: np.ndarray, new: np.ndarray, k: int) -> float:
    """Return the share of the k nearest neighbors among new vectors that is not found among mapped ones.

    Args:
        old: (n, d) unit rows, in random order.
        new: (n, e) unit rows of the same items.
        k: How many neighbors.
    """
    half = len(old) // 2
    turn = orthogonal_map(old[:half], new[:half])
    truth, gallery = new[half:], mapped(old[half:], turn)
    own = np.arange(min(_QUERIES, len(truth)))
    k = min(k, len(truth) - 1)
    true = exact.search(truth[own], truth, k, own, progress=False)[0]
    found = exact.search(truth[own], gallery, k, own, progress=False)[0]
    return 1.0 - float(np.mean([len(set(a) & set(b)) / k for a, b in zip(true, found, strict=True)]))


def refresh(
    change: Change,
    ids: Sequence[Id],
    vectors: np.ndarray,
    fingerprint: str | None,
    limit: float,
    k: int,
    note: Mapping[str, object],
) -> Refreshed:
    """Give all items vectors of another model; arguments as for `Index.refresh`.

    Raises:
        ValueError: If items have to be mapped and there are too few others to fit a map, or it loses too much.
    """
    state = change.before
    present = change.present(ids)
    at = np.asarray([number for number, id in enumerate(ids) if id in present], np.int64)
    rows = np.asarray([present[id] for id in ids if id in present], np.int64)
    order = np.argsort(rows)
    rows, at = rows[order], at[order]
    missing = state.live - len(rows)
    turn, loss = None, None
    if missing:
        turn, loss = _fitted(state.parts, rows, vectors, at, missing, limit, k)
    everything = [int(row) for (row,) in change.connection.execute("SELECT row FROM items ORDER BY row")]
    blocks = _blocks(state.parts, rows, vectors, at, turn)
    change.set("dimension", int(vectors.shape[1]))
    changes.rewrite(change, everything, blocks)
    change.set("model", fingerprint)
    change.set("decision", None)  # its threshold is one of the old model's scores
    if note:
        _note(change, note)
    return Refreshed(len(rows), missing, loss)


def _fitted(
    parts: Sequence[segments.Segment],
    rows: np.ndarray,
    vectors: np.ndarray,
    at: np.ndarray,
    missing: int,
    limit: float,
    k: int,
) -> tuple[np.ndarray, float]:
    width = parts[0].vectors.shape[1]
    needed = 4 * max(width, k)
    if len(rows) < needed:
        raise ValueError(
            f"{missing} items cannot be embedded again, and {len(rows)} that can are too few to map them: {needed} or "
            "more are needed. Bring their files back, or remove them."
        )
    chosen = np.random.default_rng(0).permutation(len(rows))[: 2 * _MOST]
    ascending = np.sort(chosen)
    old = segments.take(parts, rows[ascending])[np.searchsorted(ascending, chosen)]
    new = np.asarray(vectors[at[chosen]], np.float32)
    loss = loss_of_map(old, new, k)
    if loss > limit:
        raise ValueError(
            f"{missing} items cannot be embedded again, and a map of their old vectors loses {100 * loss:.1f} % of the "
            f"{k} nearest neighbors, more than `limit`={limit:g}. Bring their files back, remove them, or allow more."
        )
    return orthogonal_map(old, new), loss


def _blocks(
    parts: Sequence[segments.Segment], rows: np.ndarray, vectors: np.ndarray, at: np.ndarray, turn: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Yield the new vectors of all items in the order of their rows."""
    for some, old in segments.live_blocks(parts):
        place = np.searchsorted(rows, some)
        known = place < len(rows)
        known[known] = rows[place[known]] == some[known]
        new = np.zeros((len(some), vectors.shape[1]), np.float32)
        new[known] = vectors[at[place[known]]]
        if turn is not None and not known.all():
            new[~known] = mapped(np.asarray(old[~known]), turn)
        yield new


def _note(change: Change, note: Mapping[str, object]) -> None:
    """Write fields into the metadata of all items."""
    updates = []
    for row, id, text, _ in change.connection.execute("SELECT row, id, metadata, crc FROM items").fetchall():
        new = json.dumps({**json.loads(text), **note})
        updates.append((new, crc_of(id, new), row))
    change.connection.executemany("UPDATE items SET metadata = ?, crc = ? WHERE row = ?", updates)

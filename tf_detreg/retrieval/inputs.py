"""Checks of the vectors, labels and ranks that retrieval is given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_ROWS = 65_536
_UNIT = 1e-5


def unit_rows(vectors: ArrayLike, name: str) -> tuple[np.ndarray, bool]:
    """Return vectors as float32 rows of length one, and whether their lengths had to be changed.

    Retrieval compares by cosine. Rows that are already of length one (to 1e-5) are used as they are, without a copy, so
    that a memory-mapped gallery stays on disk.

    Args:
        vectors: (N, dim), any real dtype, tensor or array.
        name: The argument's name, for the messages.

    Raises:
        ValueError: If the shape is not (N, dim), or a row holds NaN or infinity, or only zeros.

    Example:
        >>> rows, changed = unit_rows([[3.0, 4.0]], "queries")
        >>> rows.tolist(), changed
        ([[0.6000000238418579, 0.800000011920929]], True)
    """
    try:
        vectors = np.asarray(vectors)
    except ValueError as error:
        raise ValueError(f"`{name}` must be vectors of shape (N, dim); received rows that differ: {error}") from error
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        hint = " Are embeddings and labels swapped? Embeddings come first." if vectors.ndim == 1 else ""
        raise ValueError(f"`{name}` must be vectors of shape (N, dim); received shape {vectors.shape}.{hint}")
    if len(vectors) == 0:
        raise ValueError(f"`{name}` must hold at least one vector; received none: it is empty.")
    if vectors.dtype.kind not in "fiu" and vectors.dtype.name != "bfloat16":
        raise ValueError(f"`{name}` must be real numbers; received dtype {vectors.dtype}.")
    length = lengths(vectors)
    _refuse(~np.isfinite(length), name, "hold NaN or infinity", "Look at the model's outputs for these inputs")
    _refuse(length == 0, name, "are all zeros, which have no direction", "Remove them, or mend what embeds them")
    if np.abs(length - 1).max() <= _UNIT and vectors.dtype == np.float32 and vectors.flags.c_contiguous:
        return vectors, False
    changed = bool(np.abs(length - 1).max() > (1e-2 if vectors.dtype.itemsize < 4 else _UNIT))
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        unit[rows] = vectors[rows].astype(np.float64) / length[rows, None]
    return unit, changed


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Return (N,) lengths of rows, in float64 and in bounded memory."""
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), _ROWS):
        block = vectors[start : start + _ROWS].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths[start : start + _ROWS] = np.sqrt(np.einsum("nd,nd->n", block, block))
    return lengths


def _refuse(bad: np.ndarray, name: str, what: str, advice: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise ValueError(f"{len(rows)} of {len(bad)} rows of `{name}` {what} (rows {shown}). {advice}.")


def same_width(queries: np.ndarray, gallery: np.ndarray) -> None:
    """Refuse queries and gallery of different models."""
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"`queries` have {queries.shape[1]} dimensions and `gallery` has {gallery.shape[1]}. "
            "Embed both with the same model."
        )


def one_each(values: ArrayLike, count: int, name: str, of: str) -> np.ndarray:
    """Return a vector (count,) of labels or groups; (count, 1) is accepted."""
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must hold one value for each of the {count} `{of}`; received lists: {error}"
        ) from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != count:
        hint = ""
        if values.ndim == 2 and len(values) == count and values.dtype.kind in "biuf":
            hint = f" Of one-hot rows, give the class numbers: np.argmax({name}, axis=1)."
        raise ValueError(
            f"`{name}` must hold one value for each of the {count} `{of}`; received shape {values.shape}.{hint}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"`{name}` holds NaN or infinity. Give integers or strings.")
    if values.dtype.kind == "O":
        kinds = {type(value) for value in values}
        if len(kinds) > 1 or kinds == {type(None)}:
            shown = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(f"`{name}` holds values that cannot be compared ({shown}). Give integers or strings.")
    return values


def same_kind(values: np.ndarray, of_gallery: np.ndarray, name: str) -> None:
    """Refuse numbers beside strings, and whole numbers that NumPy could only compare as floats, which rounds them."""
    if (values.dtype.kind in "iufb") != (of_gallery.dtype.kind in "iufb"):
        raise ValueError(
            f"`{name}` are {values.dtype} and `gallery_{name}` are {of_gallery.dtype}: no two of them can be equal. "
            "Give both as integers or both as strings."
        )
    if {values.dtype.kind, of_gallery.dtype.kind} == {"i", "u"} and np.result_type(values, of_gallery).kind == "f":
        raise ValueError(
            f"`{name}` are {values.dtype} and `gallery_{name}` are {of_gallery.dtype}, which have no integer type in "
            "common. Give both as int64 or both as uint64."
        )


def ranks_at(k: int | Sequence[int], gallery_size: int) -> tuple[int, ...]:
    """Return the list of k, sorted and without repeats.

    Args:
        k: One or several ranks, each from 1 to the number of items that a query can find.
        gallery_size: That number.

    Raises:
        ValueError: If a k is not a positive integer or is larger than the gallery.
    """
    ks = list(k) if isinstance(k, Sequence | np.ndarray) and not isinstance(k, str) else [k]
    if not ks or any(isinstance(x, bool) or not isinstance(x, int | np.integer) or x < 1 for x in ks):
        raise ValueError(f"`k` must be positive integers, such as (1, 2, 4, 8); received {k!r}.")
    if max(ks) > gallery_size:
        raise ValueError(
            f"`k`={max(ks)} is larger than the gallery: a query can find {gallery_size} items. "
            "Lower `k`, or give a larger gallery."
        )
    return tuple(sorted({int(x) for x in ks}))


def ranks_within(k: Sequence[int], gallery_size: int) -> list[int]:
    """Return those ranks that a small gallery has; the first rank, where it has none of them.

    Example:
        >>> ranks_within((1, 2, 4, 8), 5)
        [1, 2, 4]
    """
    return [rank for rank in k if rank <= gallery_size] or [1]

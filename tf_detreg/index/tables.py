"""What an index holds, as Arrow's tables: for Parquet and for other databases."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_detreg.index import segments
from tf_detreg.index.filters import Filter
from tf_detreg.index.items import Id
from tf_detreg.index.store import Store
from tf_detreg.progress import ticker
from tf_detreg.retrieval import parquet

if TYPE_CHECKING:
    import pyarrow as pa

_PART = 10_000  # items that are in memory together
_KINDS = {"true": "boolean", "false": "boolean", "integer": "integer", "real": "number", "text": "text"}


class Part(NamedTuple):
    """Some items: ids, (n, dim) float32 unit rows, and mappings."""

    ids: list[Id]
    embeddings: np.ndarray
    metadata: list[dict[str, object]]


def parts(store: Store, where: Filter | None = None, progress: bool | None = False) -> Iterator[Part]:
    """Yield the items of one state, in the order in which they were added, some at a time.

    Args:
        store: Of the index. Whoever holds it in one state meanwhile is never interrupted.
        where: Only what this filter keeps. Default: all items.
        progress: Whether to show progress; None shows it in a terminal. Default False.

    Raises:
        RuntimeError: If the index is changed meanwhile.
    """
    state = store.snapshot()
    total = state.live if where is None else count(store, where)
    with ticker("Writing items", total, progress) as tick:
        found: list[tuple[int, Id, dict[str, object]]] = []
        for row, *item in store.stored(where, state.version):
            found.append((row, *store.item(*item)))
            if len(found) == _PART:
                yield _part(state.parts, found)
                tick(len(found))
                found = []
        if found:
            yield _part(state.parts, found)
            tick(len(found))


def _part(pieces: tuple[segments.Segment, ...], found: list[tuple[int, Id, dict[str, object]]]) -> Part:
    rows, ids, metadata = zip(*found, strict=True)
    return Part(list(ids), segments.take(pieces, np.asarray(rows)), list(metadata))


def count(store: Store, where: Filter) -> int:
    """Return how many items a filter keeps."""
    text, parameters = where.sql()
    return int((store.query(f"SELECT count(*) FROM items WHERE {text}", parameters) or [(0,)])[0][0])


def fields(store: Store, where: Filter | None = None) -> dict[str, str]:
    """Return the fields of the items' metadata with their kinds, as `retrieval.parquet` names them."""
    text, parameters = ("1", []) if where is None else where.sql()
    # An integer of more than 64 bits comes out as a real.
    kind = "CASE WHEN each.type = 'integer' AND typeof(each.value) != 'integer' THEN 'json' ELSE each.type END"
    sql = f"SELECT DISTINCT each.key, {kind} FROM items, json_each(items.metadata) AS each WHERE {text}"
    found: dict[str, str] = {}
    for name, kind in store.query(sql, parameters) or []:
        if kind != "null":
            found[name] = parquet.joined(found.get(name), _KINDS.get(kind, "json"))
    return dict(sorted(found.items()))


def words(kinds: Mapping[str, str], indexed: Collection[str]) -> str:
    """Return fields and their kinds in words.

    Example:
        >>> words({"label": "text", "price": "integer"}, ["price"])
        'label (text), price (integer, indexed)'
    """
    said = [f"{name} ({kind}{', indexed' if name in indexed else ''})" for name, kind in kinds.items()]
    return ", ".join(said) or "none"


def schema(store: Store, where: Filter | None = None, model: str | None = None) -> "pa.Schema":
    """Return the Arrow schema of the items.

    Raises:
        ImportError: Without pyarrow.
        ValueError: If two ids are the same text.
    """
    facts = store.snapshot().facts
    (numbers, texts), *_ = store.query(
        "SELECT total(typeof(id) = 'integer'), total(typeof(id) != 'integer') FROM items"
    ) or [(0, 0)]
    if numbers and texts:
        both = store.query(
            "SELECT a.id FROM items a JOIN items b ON CAST(a.id AS TEXT) = b.id WHERE a.row != b.row LIMIT 1"
        )
        if both:
            raise ValueError(f"`id`={both[0][0]!r} is there as an integer and as text: written out they are the same.")
    return parquet.schema(
        int(facts["dimension"]),
        fields(store, where),
        model=model,
        fingerprint=facts["model"],
        integer_ids=bool(numbers) and not texts,
    )

r"""Embeddings as Arrow tables and Parquet files, which most databases and data frames read.

A table has the columns `id` (text), `vector` (a list of fixed length, float32) and one column a field of the metadata:

| kind of a field | column | what the metadata hold |
|---|---|---|
| `"boolean"` | bool | true and false |
| `"integer"` | int64 | integers of 64 bits |
| `"number"` | double | numbers |
| `"text"` | string | text |
| `"json"` | string | anything else: each value as JSON |

An item that lacks a field has null there, as has one whose field is null. Ids that are integers are written as text
and read as integers again. The schema names the model (`tf_detreg.model`) and holds its fingerprint
(`tf_detreg.fingerprint`). Text that is no UTF-8, as names of files can be, is written with escapes such as `\xe9`.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_detreg import extras
from tf_detreg.files import readable, replacing

if TYPE_CHECKING:
    import pyarrow as pa

ID, VECTOR = "id", "vector"
KINDS = ("boolean", "integer", "number", "text", "json")
_MODEL, _FINGERPRINT, _IDS = b"tf_detreg.model", b"tf_detreg.fingerprint", b"tf_detreg.ids"
_FIELD, _KIND = b"tf_detreg.field", b"tf_detreg.kind"


class Contents(NamedTuple):
    """What a file or folder of embeddings holds.

    Args:
        ids: N texts or integers.
        embeddings: (N, dim) float32.
        metadata: N mappings.
        model: The model's name; None where it is not known.
        fingerprint: What identifies the model; None where it is not known.
    """

    ids: list[str | int]
    embeddings: np.ndarray
    metadata: list[dict[str, object]]
    model: str | None
    fingerprint: str | None


def require() -> None:
    """Raise where pyarrow is not installed.

    Raises:
        ImportError: With what to install.
    """
    with extras.needed("Parquet"):
        import pyarrow.parquet  # noqa: F401


def fields_of(metadata: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Return each field of some metadata with its kind.

    Example:
        >>> fields_of([{"label": "mug", "price": 3}, {"price": 2.5, "sizes": [1, 2]}])
        {'label': 'text', 'price': 'number', 'sizes': 'json'}
    """
    found: dict[str, str] = {}
    for item in metadata:
        for name, value in item.items():
            if value is not None:
                found[name] = joined(found.get(name), _kind(value))
    return found


def joined(first: str | None, second: str) -> str:
    """Return the kind of a field that has values of two kinds.

    Example:
        >>> joined(None, "text"), joined("integer", "number"), joined("text", "integer")
        ('text', 'number', 'json')
    """
    if first is None or first == second:
        return second
    return "number" if {first, second} == {"integer", "number"} else "json"


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "json"
    return "number" if isinstance(value, float) else "text" if isinstance(value, str) else "json"


def schema(
    dimension: int,
    fields: Mapping[str, str] | None = None,
    *,
    model: str | None = None,
    fingerprint: str | None = None,
    integer_ids: bool = False,
) -> "pa.Schema":
    """Return the Arrow schema of embeddings.

    Args:
        dimension: Of the vectors.
        fields: Kinds of the metadata's fields, as `fields_of` finds them. Default: none.
        model: The model's name. Default: unknown.
        fingerprint: Of the model, as `retrieval.fingerprint` makes it. Default: unknown.
        integer_ids: Whether the ids are integers, to be read as such again. Default False.

    Returns:
        A `pyarrow.Schema`. A field whose name is taken by a column gets underscores behind it.

    Raises:
        ImportError: Without pyarrow.
        ValueError: If a kind is none.

    Example:
        >>> schema(2, {"price": "number"}).names
        ['id', 'vector', 'price']
    """
    require()
    import pyarrow as pa

    types = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
    columns = [pa.field(ID, pa.string(), nullable=False), pa.field(VECTOR, pa.list_(pa.float32(), dimension), False)]
    names = {ID, VECTOR}
    for name, kind in (fields or {}).items():
        if kind not in KINDS:
            raise ValueError(f"`fields` must have kinds among {', '.join(KINDS)}; received {kind!r} for {name!r}.")
        column = readable(name)
        while column in names:
            column += "_"
        names.add(column)
        marks = {_FIELD: readable(name).encode(), _KIND: kind.encode()}
        columns.append(pa.field(column, types.get(kind, pa.string()), metadata=marks))
    known = {_MODEL: model, _FINGERPRINT: fingerprint, _IDS: "integers" if integer_ids else None}
    return pa.schema(columns, {key: readable(value).encode() for key, value in known.items() if value is not None})


def batch(
    table: "pa.Schema",
    ids: Sequence[str | int],
    embeddings: np.ndarray,
    metadata: Sequence[Mapping[str, object]] | None = None,
) -> "pa.RecordBatch":
    """Return embeddings as Arrow's columns.

    Args:
        table: From `schema`.
        ids: n texts or integers.
        embeddings: (n, dim) float32.
        metadata: n mappings. Default: empty ones.

    Raises:
        ValueError: If the lengths or dimensions do not fit.
    """
    import pyarrow as pa

    rows = np.ascontiguousarray(embeddings, np.float32)
    width = table.field(VECTOR).type.list_size
    items = [{}] * len(ids) if metadata is None else metadata
    if rows.shape != (len(ids), width) or len(items) != len(ids):
        raise ValueError(
            f"`ids`, `embeddings` and `metadata` must fit; received {len(ids)} ids, embeddings {rows.shape} for "
            f"{width} dimensions and {len(items)} mappings."
        )
    columns = [
        pa.array([readable(id) if isinstance(id, str) else str(id) for id in ids], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width),
    ]
    for column in list(table)[2:]:
        name, kind = column.metadata[_FIELD].decode(), column.metadata[_KIND].decode()
        values = [_cell(item.get(name), kind) for item in items]
        columns.append(pa.array(values, column.type))
    return pa.record_batch(columns, schema=table)


def _cell(value: object, kind: str) -> object:
    """Return a value as its column takes it."""
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value)
    if kind == "number":
        return float(value)  # type: ignore[arg-type]  # its kind says that it is a number
    return readable(value) if isinstance(value, str) else value


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], table: "pa.Schema") -> Iterator[Callable[..., None]]:
    """Write a Parquet file in parts; it gets its name when the block ends well.

    Args:
        path: The file.
        table: From `schema`.

    Yields:
        A function of `ids`, `embeddings` and `metadata`, as `batch` takes them, that adds rows.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "vectors.parquet"
        >>> with writing(file, schema(2, {"label": "text"}, model="shop")) as write:
        ...     write(["a", "b"], np.eye(2), [{"label": "mug"}, {}])
        >>> read(file).metadata
        [{'label': 'mug'}, {}]
    """
    import pyarrow.parquet as pq

    # Vectors hardly compress, and a dictionary of them is larger than they are.
    texts = [column.name for column in table if column.name != VECTOR]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, table, compression="zstd", use_dictionary=texts) as writer,
    ):

        def write(
            ids: Sequence[str | int], embeddings: np.ndarray, metadata: Sequence[Mapping[str, object]] | None = None
        ) -> None:
            writer.write_batch(batch(table, ids, embeddings, metadata))

        yield write


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a Parquet file of embeddings, or all `*.parquet` of a folder in the order of their names.

    Raises:
        ImportError: Without pyarrow.
        OSError: If it is not there.
        ValueError: If there is no such file, or one that holds something else.
    """
    require()
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _errors_of(path):
        tables = [pq.read_table(file) for file in _files(path)]
        table = pa.concat_tables(tables, promote_options="permissive")
    return _contents(table, path)


def parts(path: str | os.PathLike[str], rows: int = 65_536) -> Iterator[Contents]:
    """Read what `read` reads some rows at a time, so that no more than those are in memory; arguments as there.

    Example:
        >>> import tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "vectors.parquet"
        >>> with writing(file, schema(2)) as write:
        ...     write(["a", "b", "c"], np.ones((3, 2)))
        >>> [part.ids for part in parts(file, rows=2)]
        [['a', 'b'], ['c']]
    """
    require()
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in _files(path):
        with _errors_of(file), pq.ParquetFile(file) as opened:
            for some in opened.iter_batches(rows):
                yield _contents(pa.Table.from_batches([some], opened.schema_arrow), file)


def count(path: str | os.PathLike[str]) -> int:
    """Return how many rows `read` would read, which the ends of the files say; arguments as there."""
    require()
    import pyarrow.parquet as pq

    with _errors_of(path):
        return sum(int(pq.read_metadata(file).num_rows) for file in _files(path))


def _files(path: str | os.PathLike[str]) -> list[pathlib.Path]:
    path = pathlib.Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"`path`={str(path)!r} holds no *.parquet.")
    return files


@contextlib.contextmanager
def _errors_of(path: str | os.PathLike[str]) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise ValueError(f"`path`={str(path)!r} cannot be read: {error}.") from error


def _contents(table: "pa.Table", path: str | os.PathLike[str]) -> Contents:
    """Return what a table of embeddings holds.

    Raises:
        ValueError: If it has other columns.
    """
    import pyarrow as pa

    marks = table.schema.metadata or {}
    names = table.schema.names
    if not {ID, VECTOR} <= set(names) or not pa.types.is_fixed_size_list(_type_of(table.schema, VECTOR)):
        kind = f" (`{VECTOR}` is {table.schema.field(VECTOR).type})" if VECTOR in names else ""
        raise ValueError(
            f"`path`={str(path)!r} has the columns {', '.join(names)}{kind}; it needs `{ID}` and `{VECTOR}`, a "
            "list of fixed length."
        )
    ids: list[str | int] = table.column(ID).to_pylist()
    if marks.get(_IDS) == b"integers":
        ids = [int(id) for id in ids]
    width = table.schema.field(VECTOR).type.list_size
    vectors = [np.asarray(chunk.flatten(), np.float32).reshape(-1, width) for chunk in table.column(VECTOR).chunks]
    rows = np.concatenate(vectors) if vectors else np.empty((0, width), np.float32)
    return Contents(ids, rows, _metadata(table), _text(marks.get(_MODEL)), _text(marks.get(_FINGERPRINT)))


def _type_of(table: "pa.Schema", name: str) -> object:
    return table.field(name).type if name in table.names else None


def _text(mark: bytes | None) -> str | None:
    return None if mark is None else mark.decode()


def _metadata(table: "pa.Table") -> list[dict[str, object]]:
    items: list[dict[str, object]] = [{} for _ in range(len(table))]
    for column in table.schema:
        if column.name in (ID, VECTOR):
            continue
        marks = column.metadata or {}
        name, is_json = marks.get(_FIELD, column.name.encode()).decode(), marks.get(_KIND) == b"json"
        for item, value in zip(items, table.column(column.name).to_pylist(), strict=True):
            if value is not None:
                item[name] = json.loads(value) if is_json else value
    return items

"""Ids, metadata and the list of segments, in SQLite: a change is one transaction, every reader sees a whole state."""

import contextlib
import json
import pathlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_detreg.index import segments
from tf_detreg.index.filters import Filter, column_of
from tf_detreg.index.items import Id, bound, crc_of, unbound
from tf_detreg.index.segments import Segment

FILE = "items.sqlite"
FORMAT = 2
_WAIT = 60.0  # seconds that a writer waits for another one
_TRIES = 20
_PAGE = 10_000  # items that are read together
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE segments (
    number INTEGER PRIMARY KEY, start INTEGER NOT NULL, count INTEGER NOT NULL,
    file TEXT NOT NULL, sha256 TEXT NOT NULL, removed BLOB
);
CREATE TABLE items (row INTEGER PRIMARY KEY, id NOT NULL UNIQUE, metadata TEXT NOT NULL, crc INTEGER NOT NULL);
"""


class Snapshot(NamedTuple):
    """One state of an index.

    Args:
        version: Counts the changes.
        facts: Dimension, model, tree and what else is known of the whole.
        parts: The segments, in the order of their rows.
    """

    version: int
    facts: Mapping[str, Any]
    parts: tuple[Segment, ...]

    @property
    def live(self) -> int:
        """How many items there are."""
        return sum(part.live for part in self.parts)

    @property
    def end(self) -> int:
        """The row number of the next item."""
        return int(self.facts["end"])

    @property
    def tree(self) -> dict[str, Any] | None:
        """What is known about the tree."""
        tree: dict[str, Any] | None = self.facts["tree"]
        return tree

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the metadata that have an index."""
        return tuple(self.facts["fields"])


class Store:
    """The SQLite side of an index, on disk or in memory.

    Args:
        directory: Of the index; None keeps everything in memory.
        dimension: Of the vectors, where a new index is made; None opens one that is there.

    Raises:
        ValueError: If there is none to open, or it is damaged or of another format.
        OSError: If it cannot be written.
    """

    def __init__(self, directory: pathlib.Path | None, dimension: int | None = None):
        self.directory = directory
        self._lock = threading.RLock()
        self._arrays: dict[int, np.ndarray] = {}
        self._snapshot: Snapshot | None = None
        if directory is not None and dimension is not None:
            (directory / segments.FOLDER).mkdir(parents=True, exist_ok=True)
        self._connection = self._connect(dimension is not None)
        if dimension is not None:
            self._create(dimension)

    def _connect(self, create: bool) -> sqlite3.Connection:
        if self.directory is None:
            return _connected("file::memory:")
        file = self.directory / FILE
        if not create and not file.is_file():
            raise ValueError(
                f"path={str(self.directory)!r} is not an index: it holds no {FILE}. Make one with "
                "Index(…).save(path), or with `tf-detreg index RUN IMAGES/ --to INDEX`."
            )
        address = file.absolute().as_uri()
        try:
            connection = _connected(f"{address}?mode={'rwc' if create else 'rw'}")
            connection.execute("PRAGMA journal_mode = WAL")
            return connection
        except sqlite3.OperationalError as error:
            # A volume that cannot be written to: nobody changes it, so it can be read without locks.
            if create or (self.directory / f"{FILE}-wal").exists():
                raise OSError(f"The index {str(self.directory)!r} cannot be opened: {error}.") from error
            return _connected(f"{address}?mode=ro&immutable=1")
        except sqlite3.DatabaseError as error:
            raise segments.damaged(self.directory, f"{FILE} cannot be read: {error}") from error

    def _create(self, dimension: int) -> None:
        # One transaction: a second process that makes the same index waits, and then finds it.
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        connection.execute(statement)
                    facts: dict[str, object] = {
                        "format": FORMAT,
                        "dimension": dimension,
                        "model": None,
                        "end": 0,
                        "version": 0,
                    }
                    facts |= {"next_segment": 1, "tree": None, "fields": []}
                    rows = [(name, json.dumps(value)) for name, value in facts.items()]
                    connection.executemany("INSERT INTO facts VALUES (?, ?)", rows)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread at a time; what SQLite says of a damaged file becomes our sentence."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.OperationalError as error:
                if "locked" in str(error) or "busy" in str(error):
                    message = f"The index {str(self.directory)!r} is being changed by another process; try again."
                    raise TimeoutError(message) from error
                if "readonly" in str(error) or "full" in str(error):
                    raise OSError(f"The index {str(self.directory)!r} cannot be written: {error}.") from error
                raise segments.damaged(self.directory, f"{FILE}: {error}") from error
            except sqlite3.IntegrityError:
                raise
            except sqlite3.DatabaseError as error:
                raise segments.damaged(self.directory, f"{FILE}: {error}") from error

    def snapshot(self) -> Snapshot:
        """Return the present state; cheap while nothing has changed.

        Raises:
            ValueError: If the index is damaged or of another format.
        """
        for attempt in range(_TRIES):
            with self.reading() as connection, _transaction(connection, "DEFERRED"):
                version = self.fact(connection, "version")
                if self._snapshot is not None and self._snapshot.version == version:
                    return self._snapshot
                facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
                listed = connection.execute("SELECT * FROM segments ORDER BY start").fetchall()
            try:
                self._snapshot = self._opened(facts, listed)
                return self._snapshot
            except FileNotFoundError as error:
                # A writer has merged segments between the list and the files: the next list is a newer one.
                if attempt == _TRIES - 1:
                    raise segments.damaged(self.directory, f"{error.filename} is missing") from error
        raise AssertionError  # the loop returns or raises

    def _opened(self, facts: Mapping[str, str], listed: Sequence[tuple[Any, ...]]) -> Snapshot:
        read = {name: json.loads(value) for name, value in facts.items()}
        if read.get("format") != FORMAT:
            raise ValueError(
                f"path={str(self.directory)!r} is an index of format {read.get('format')}; this version reads {FORMAT}."
            )
        known = {} if self._snapshot is None else {part.number: part for part in self._snapshot.parts}
        parts = []
        for number, start, count, file, sha256, removed in listed:
            old = known.get(number)
            if old is not None:
                vectors = old.vectors
            elif self.directory is None:
                vectors = self._arrays[number]
            else:
                vectors = segments.open_file(self.directory, file, count, read["dimension"])
            parts.append(Segment(number, start, count, file, sha256, segments.unpack(removed, count), vectors))
        return Snapshot(read["version"], read, tuple(parts))

    def fact(self, connection: sqlite3.Connection, name: str) -> Any:
        """Return a fact about the whole index."""
        found = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise segments.damaged(self.directory, f"{FILE} lacks {name}")
        return json.loads(found[0])

    @contextlib.contextmanager
    def changing(self) -> Iterator["Change"]:
        """Open a change: all of it is kept when the block ends well, and nothing of it when it does not.

        Yields:
            The `Change`.

        Raises:
            TimeoutError: If another process keeps changing the index.
            OSError: If it cannot be written.
        """
        with self.reading() as connection, _transaction(connection, "IMMEDIATE"):
            before = self.snapshot_within(connection)
            if self.directory is not None:
                segments.drop_unknown(self.directory, {part.file for part in before.parts})
            change = Change(self, connection, before)
            yield change
            change.set("version", before.version + 1)
        # Only now, and only what this change dropped: another writer may be at work already.
        for part in change.dropped:
            self._arrays.pop(part.number, None)
            if self.directory is not None:
                segments.drop(self.directory, part.file)

    def snapshot_within(self, connection: sqlite3.Connection) -> Snapshot:
        """Return the state inside a transaction, which sees its own changes."""
        facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        listed = connection.execute("SELECT * FROM segments ORDER BY start").fetchall()
        return self._opened(facts, listed)

    def keep_array(self, number: int, vectors: np.ndarray) -> None:
        """Hold a segment of an index in memory."""
        self._arrays[number] = vectors

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep one state for all that is read inside, whatever others change meanwhile."""
        with self.reading() as connection, _transaction(connection, "DEFERRED"):
            self.fact(connection, "version")
            yield

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, version: int | None = None
    ) -> list[tuple[Any, ...]] | None:
        """Return the rows of a query; None where the index is no longer in the state of `version`."""
        with self.reading() as connection, _transaction(connection, "DEFERRED"):
            if version is not None and self.fact(connection, "version") != version:
                return None
            return connection.execute(sql, parameters).fetchall()

    def items(self, rows: Iterable[int], version: int | None = None) -> dict[int, tuple[Id, dict[str, object]]] | None:
        """Return id and metadata by row number; None where the state is no longer that of `version`.

        Raises:
            ValueError: If an item is damaged.
        """
        sql = "SELECT row, id, metadata, crc FROM items WHERE row IN (SELECT value FROM json_each(?))"
        found = self.query(sql, [json.dumps([int(row) for row in rows])], version=version)
        return None if found is None else {row: self.item(*item) for row, *item in found}

    def stored(self, where: Filter | None = None) -> Iterator[tuple[Any, ...]]:
        """Iterate over row number, id, metadata and checksum as they are stored, in the order of the rows.

        Args:
            where: Only what this filter keeps. Default: all items.
        """
        text, parameters = ("1", []) if where is None else where.sql()
        sql = f"SELECT row, id, metadata, crc FROM items WHERE row > ? AND {text} ORDER BY row LIMIT {_PAGE}"
        last = -1
        while found := self.query(sql, [last, *parameters]):
            yield from found
            last = found[-1][0]

    def item(self, id: str | int | bytes, metadata: str, crc: int) -> tuple[Id, dict[str, object]]:
        """Return id and metadata of a row of the table, checked.

        Raises:
            ValueError: If they do not match their checksum.
        """
        if crc_of(id, metadata) != crc:
            raise segments.damaged(self.directory, f"the item {unbound(id)!r} does not match its checksum")
        return unbound(id), json.loads(metadata)

    def rows_where(self, where: Filter, version: int) -> np.ndarray | None:
        """Return the ascending row numbers that a filter keeps; None where the state is no longer that of `version`."""
        text, parameters = where.sql()
        found = self.query(f"SELECT row FROM items WHERE {text} ORDER BY row", parameters, version=version)
        return None if found is None else np.fromiter((row for (row,) in found), np.int64, len(found))


class Change:
    """What can be done inside a transaction.

    Args:
        store: The store.
        connection: Its connection.
        before: The state that the change began with.
    """

    def __init__(self, store: Store, connection: sqlite3.Connection, before: Snapshot):
        self.store, self.connection, self.before = store, connection, before
        self.dropped: list[Segment] = []

    def state(self) -> Snapshot:
        """Return the state of the index with what the change has done so far."""
        return self.store.snapshot_within(self.connection)

    def set(self, name: str, value: object) -> None:
        """Write a fact about the whole index."""
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def present(self, ids: Sequence[Id]) -> dict[Id, int]:
        """Return the rows of those ids that are in the index."""
        found: dict[Id, int] = {}
        for start in range(0, len(ids), 500):
            part = [bound(id) for id in ids[start : start + 500]]
            marks = ",".join("?" * len(part))
            sql = f"SELECT id, row FROM items WHERE id IN ({marks})"
            found |= {unbound(id): row for id, row in self.connection.execute(sql, part)}
        return found

    def rows_where(self, where: Filter) -> list[int]:
        """Return the rows of the items that a filter keeps."""
        text, parameters = where.sql()
        return [row for (row,) in self.connection.execute(f"SELECT row FROM items WHERE {text}", parameters)]

    def append(self, ids: Sequence[Id], metadata: Sequence[str], vectors: np.ndarray) -> None:
        """Add items behind the last row; their ids are known to be free."""
        start = self.state().end
        self.add_segment(start, len(vectors), [vectors])
        pairs = enumerate(zip(map(bound, ids), metadata, strict=True), start)
        rows = ((row, id, text, crc_of(id, text)) for row, (id, text) in pairs)
        self.connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
        self.set("end", start + len(vectors))

    def add_segment(
        self,
        start: int,
        count: int,
        blocks: Iterable[np.ndarray],
        removed: np.ndarray | None = None,
    ) -> None:
        """Write vectors, given in pieces, as a new segment that begins at a row number."""
        number = self.store.fact(self.connection, "next_segment")
        self.set("next_segment", number + 1)
        name = sha256 = ""
        if self.store.directory is None:
            self.store.keep_array(number, np.concatenate(list(blocks)))
        else:
            width = self.store.fact(self.connection, "dimension")
            name, sha256 = segments.write(self.store.directory, number, blocks, count, width)
        values = (number, start, count, name, sha256, segments.pack(removed))
        self.connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", values)

    def drop_segments(self, parts: Iterable[Segment]) -> None:
        """Take segments out of the list; their files go when the change is kept."""
        parts = list(parts)
        self.dropped += parts
        self.connection.executemany("DELETE FROM segments WHERE number = ?", [(part.number,) for part in parts])

    def remove(self, rows: Iterable[int]) -> None:
        """Remove the items of these rows."""
        gone = np.sort(np.fromiter(rows, np.int64))
        self.connection.executemany("DELETE FROM items WHERE row = ?", ((int(row),) for row in gone))
        for part in self.state().parts:
            low, high = np.searchsorted(gone, [part.start, part.end])
            if low < high:
                removed = np.zeros(part.count, bool) if part.removed is None else part.removed.copy()
                removed[gone[low:high] - part.start] = True
                self.connection.execute(
                    "UPDATE segments SET removed = ? WHERE number = ?", (segments.pack(removed), part.number)
                )

    def index_fields(self, fields: Iterable[str]) -> None:
        """Make filters on these fields quick."""
        for field in fields:
            name = json.dumps(f"field {field}").replace('"', "")
            self.connection.execute(f'CREATE INDEX IF NOT EXISTS "{name}" ON items ({column_of(field)})')
        self.set("fields", list(dict.fromkeys([*self.state().fields, *fields])))


def _connected(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_WAIT)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    if connection.in_transaction:  # a reader inside a change sees the change
        yield
        return
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

"""Ids, metadata and the list of segments, in SQLite: a change is one transaction, every reader sees a whole state."""

import contextlib
import json
import pathlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_detreg.files import existing
from tf_detreg.index import segments
from tf_detreg.index.change import Change
from tf_detreg.index.connection import connected, transaction, wide_cache
from tf_detreg.index.filters import Filter
from tf_detreg.index.items import Id, crc_of, unbound
from tf_detreg.index.segments import Segment
from tf_detreg.index.snapshot import Snapshot

FILE = "items.sqlite"
FORMAT = 2
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


class Store:
    """The SQLite side of an index, on disk or in memory.

    Args:
        directory: Of the index; None keeps everything in memory.
        dimension: Of the vectors, where a new index is made; None opens one that is there.

    Raises:
        ValueError: If there is none to open, it is damaged or of another format, or it has been closed.
        OSError: If it cannot be written.
    """

    def __init__(self, directory: pathlib.Path | None, dimension: int | None = None) -> None:
        # Whoever opens it by a relative path may go to another folder afterwards.
        self.directory = None if directory is None else directory.absolute()
        self._closed = False
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
            return connected("file::memory:")
        file = self.directory / FILE
        if not create and not file.is_file():
            existing(self.directory, "directory", "`tf-detreg index RUN IMAGES/ --to INDEX` makes an index.")
            raise ValueError(
                f"`path`={str(self.directory)!r} is not an index: it holds no {FILE}. Make one with "
                "Index(…).save(path), or with `tf-detreg index RUN IMAGES/ --to INDEX`."
            )
        address = file.absolute().as_uri()
        try:
            connection = connected(f"{address}?mode={'rwc' if create else 'rw'}")
            connection.execute("PRAGMA journal_mode = WAL")
            return connection
        except sqlite3.OperationalError as error:
            # A volume that cannot be written to: nobody changes it, so it can be read without locks.
            if create or (self.directory / f"{FILE}-wal").exists():
                raise OSError(f"The index {str(self.directory)!r} cannot be opened: {error}.") from error
            return connected(f"{address}?mode=ro&immutable=1")
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
        self._closed = True
        self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread at a time; what SQLite says of a damaged file becomes our sentence."""
        with self._lock:
            if self._closed:
                raise ValueError("This index is closed: open it again with Index.load(directory).")
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
            with self.reading() as connection, transaction(connection, "DEFERRED"):
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
                f"`path`={str(self.directory)!r} is an index of format {read.get('format')}; this version "
                f"reads {FORMAT}."
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
    def changing(self) -> Iterator[Change]:
        """Open a change: all of it is kept when the block ends well, and nothing of it when it does not.

        Yields:
            The `Change`.

        Raises:
            TimeoutError: If another process keeps changing the index.
            OSError: If it cannot be written.
        """
        with self.reading() as connection, wide_cache(connection), transaction(connection, "IMMEDIATE"):
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
        with self.reading() as connection, transaction(connection, "DEFERRED"):
            self.fact(connection, "version")
            yield

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, version: int | None = None
    ) -> list[tuple[Any, ...]] | None:
        """Return the rows of a query; None where the index is no longer in the state of `version`."""
        with self.reading() as connection, transaction(connection, "DEFERRED"):
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
        if found is None:
            return None
        # Read as one text: thousands of calls of the decoder take as long as the search that found these items.
        texts = [self._checked(*item) for _, *item in found]
        read = json.loads(f"[{','.join(texts)}]")
        return {row: (unbound(id), facts) for (row, id, _, _), facts in zip(found, read, strict=True)}

    def stored(self, where: Filter | None = None, version: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Iterate over row number, id, metadata and checksum as they are stored, in the order of the rows.

        Args:
            where: Only what this filter keeps. Default: all items.
            version: Of the state that is meant. Default: whatever state is there when a page is read.

        Raises:
            RuntimeError: If the state is no longer that of `version`.
        """
        text, parameters = ("1", []) if where is None else where.sql()
        sql = f"SELECT row, id, metadata, crc FROM items WHERE row > ? AND {text} ORDER BY row LIMIT {_PAGE}"
        last = -1
        while found := self.query(sql, [last, *parameters], version=version):
            yield from found
            last = found[-1][0]
        if found is None:
            raise RuntimeError(f"The index {str(self.directory)!r} was changed while it was read. Read it again.")

    def item(self, id: str | int | bytes, metadata: str, crc: int) -> tuple[Id, dict[str, object]]:
        """Return id and metadata of a row of the table, checked.

        Raises:
            ValueError: If they do not match their checksum.
        """
        return unbound(id), json.loads(self._checked(id, metadata, crc))

    def _checked(self, id: str | int | bytes, metadata: str, crc: int) -> str:
        """Return the metadata of a row of the table as they are stored, compared with their checksum."""
        if crc_of(id, metadata) != crc:
            raise segments.damaged(self.directory, f"the item {unbound(id)!r} does not match its checksum")
        return metadata

    def rows_where(self, where: Filter, version: int) -> np.ndarray | None:
        """Return the ascending row numbers that a filter keeps; None where the state is no longer that of `version`."""
        text, parameters = where.sql()
        found = self.query(f"SELECT row FROM items WHERE {text} ORDER BY row", parameters, version=version)
        return None if found is None else np.fromiter((row for (row,) in found), np.int64, len(found))

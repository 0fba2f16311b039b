"""What can be done to an index inside one transaction."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_detreg.index import segments
from tf_detreg.index.filters import Filter, column_of
from tf_detreg.index.items import Id, bound, crc_of, unbound
from tf_detreg.index.segments import Segment
from tf_detreg.index.snapshot import Snapshot

if TYPE_CHECKING:
    from tf_detreg.index.store import Store


class Change:
    """What can be done inside a transaction.

    Args:
        store: The store.
        connection: Its connection.
        before: The state that the change began with.
    """

    def __init__(self, store: "Store", connection: sqlite3.Connection, before: Snapshot) -> None:
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
            self.connection.execute(f'CREATE INDEX IF NOT EXISTS "{name}" ON items ({column_of(field, "fields")})')
        self.set("fields", list(dict.fromkeys([*self.state().fields, *fields])))

"""SQLite as an index uses it: durable, and with transactions that begin where we say."""

import contextlib
import sqlite3
from collections.abc import Iterator

_WAIT = 60.0  # seconds that a writer waits for another one
_CACHE = 131_072  # KiB that a change may use; a search makes do with SQLite's 2 MB


def connected(address: str) -> sqlite3.Connection:
    """Open a file or, as `file::memory:`, an empty database."""
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_WAIT)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Keep what is done inside, or nothing of it; inside another transaction this is a part of that one."""
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


@contextlib.contextmanager
def wide_cache(connection: sqlite3.Connection) -> Iterator[None]:
    """Let a change hold more pages in memory, and give them back in the end.

    Rows that lie together in the table lie apart in its indexes. With the few pages that SQLite holds by itself, a
    change of many rows writes a page and reads it again for every row.
    """
    (before,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute(f"PRAGMA cache_size = {-_CACHE}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA cache_size = {int(before)}")
        connection.execute("PRAGMA shrink_memory")

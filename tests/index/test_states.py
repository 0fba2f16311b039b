"""What an index refuses, checks and closes, state by state: how SQLite is opened, and what is damaged."""

import contextlib
import sqlite3
import types

import numpy as np
import pytest

from tf_detreg.index import Index, Shards, connection, nearest, pgvector, searching, segments, trees, tuning
from tf_detreg.index.segments import Segment
from tf_detreg.index.store import Store


@pytest.fixture
def kept(tmp_path):
    """An index of three items on disk."""
    Index(np.eye(3), ["a", "b", "c"], fingerprint="f" * 64).save(tmp_path / "shop")
    return tmp_path / "shop"


def test_sqlite_waits_and_writes_through(kept, monkeypatch):
    with Index.load(kept) as index, index._store.reading() as opened:
        asked = {name: opened.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")}
        assert asked == {"synchronous": 2, "journal_mode": "wal"} and connection._WAIT == 60
        assert opened.execute("PRAGMA busy_timeout").fetchone()[0] == 60_000
        before = opened.execute("PRAGMA cache_size").fetchone()[0]
        with contextlib.suppress(KeyError), connection.wide_cache(opened):
            assert opened.execute("PRAGMA cache_size").fetchone()[0] == -131_072
            raise KeyError
        assert opened.execute("PRAGMA cache_size").fetchone()[0] == before
    # Who waits longer than that is told.
    monkeypatch.setattr(connection, "_WAIT", 0.01)
    other = sqlite3.connect(kept / "items.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Index.load(kept) as index, pytest.raises(TimeoutError, match="is being changed by another process; try again"):
        index.remove(["a"])
    other.execute("ROLLBACK")
    other.close()
    with Index.load(kept) as index:
        assert index.remove(["a"]) == 1


def test_a_part_of_a_transaction_is_kept_with_all_of_it_or_not_at_all():
    opened = connection.connected("file::memory:")
    opened.execute("CREATE TABLE t (x)")
    with pytest.raises(KeyError), connection.transaction(opened, "IMMEDIATE"):
        opened.execute("INSERT INTO t VALUES (1)")
        with connection.transaction(opened, "DEFERRED"):
            opened.execute("INSERT INTO t VALUES (2)")
        raise KeyError
    assert not opened.in_transaction and opened.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with connection.transaction(opened, "IMMEDIATE"), connection.transaction(opened, "DEFERRED"):
        opened.execute("INSERT INTO t VALUES (3)")
    assert opened.execute("SELECT x FROM t").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM items WHERE id = 'b'", "2 items for 3 vectors"),
        ("DELETE FROM facts WHERE name = 'version'", r"items\.sqlite lacks version"),
        ("UPDATE facts SET value = '3' WHERE name = 'format'", "is an index of format 3; this version reads 2"),
        ("UPDATE items SET metadata = '{\"x\": 1}' WHERE id = 'b'", "is damaged"),
        ("UPDATE segments SET count = 2", r"holds float32 \(3, 3\), not \(2, 3\)"),
    ],
)
def test_what_was_changed_behind_an_index_is_damaged(sql, told, kept):
    other = sqlite3.connect(kept / "items.sqlite")
    other.execute(sql)
    other.commit()
    other.close()
    with pytest.raises(ValueError, match=told):
        Index.load(kept, verify=True)


def test_vectors_of_another_type_are_damaged(tmp_path):
    (tmp_path / "segments").mkdir()
    np.save(tmp_path / "segments" / "x.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="holds float64"):
        segments.open_file(tmp_path, "x.npy", 2, 3)
    (tmp_path / "segments" / "x.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        segments.open_file(tmp_path, "x.npy", 2, 3)


def test_vectors_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    (tmp_path / "segments").mkdir()
    done = []
    monkeypatch.setattr(
        segments.os, "fsync", lambda number: done.append(len(list((tmp_path / "segments").glob("*.npy"))))
    )
    monkeypatch.setattr(segments, "sync_entry", lambda folder: done.append(folder.name))
    name, mark = segments.write(tmp_path, 7, iter([np.eye(3)[:2], np.eye(3)[2:]]), 3, 3)
    assert name == "00000007.npy" and done == [0, "segments"]
    assert segments.open_file(tmp_path, name, 3, 3).tolist() == np.eye(3).tolist()
    part = Segment(7, 0, 3, name, mark, None, np.eye(3))
    segments.check(tmp_path, part)
    (tmp_path / "segments" / "other.npy").write_bytes(b"")
    segments.drop_unknown(tmp_path, {name})
    assert [file.name for file in (tmp_path / "segments").iterdir()] == [name]


def test_what_an_index_refuses(kept):
    with Index.load(kept) as index:
        with pytest.raises(ValueError, match="another index"):
            index.merge(index)
        with pytest.raises(ValueError, match="d"):
            index.vector("d")
        with pytest.raises(ValueError, match="decision"):
            index.decision = 0.5
        with pytest.raises(ValueError, match="`engine` must be"):
            index.search(np.eye(3), 1, engine="other")
        with pytest.raises(ValueError, match="either `ids` or `where`"):
            index.remove()
        with pytest.raises(ValueError, match="either `ids` or `where`"):
            index.remove(["a"], where="x = 1")
        vectors = index.embeddings
        with pytest.raises(ValueError, match="read-only"):
            vectors[0, 0] = 7
        index.update_metadata("a", {"x": 1, "y": 2})
        index.update_metadata("a", {"x": None, "z": 3})
        assert index.metadata("a") == {"y": 2, "z": 3}
    with pytest.raises(ValueError, match="This index is closed"):
        index.search(np.eye(3), 1)


def test_shards_close_together_and_say_what_one_of_them_knows():
    parts = [Index(np.eye(2), [f"{at}a", f"{at}b"], fingerprint=mark) for at, mark in enumerate((None, "f" * 64))]
    with Shards(parts) as shards:
        assert shards.fingerprint == "f" * 64 and len(shards) == 4
        assert shards.search([1.0, 0.0], 2).ids == [["0a", "1a"]]
    for part in parts:
        with pytest.raises(ValueError, match="This index is closed"):
            part.search(np.eye(2), 1)
    with pytest.raises(RuntimeError):
        shards.count()
    with pytest.raises(ValueError, match="must be of one model"):
        Shards([Index(np.eye(2), fingerprint=mark * 64) for mark in "ab"])


def test_a_search_holds_one_state_where_writers_are_quicker(monkeypatch):
    held, asked = [], []

    @contextlib.contextmanager
    def holding():
        held.append(True)
        yield
        held.pop()

    searcher = searching.Searcher(types.SimpleNamespace(holding=holding), None)
    found = [None] * 10 + ["matches"]

    def attempt(queries, k, kept, where, engine, progress):
        asked.append((engine, bool(held)))
        return found.pop(0)

    monkeypatch.setattr(searcher, "_attempt", attempt)
    assert searcher.search(None, 1, None, "auto", False) == "matches"
    assert asked == [("auto", False)] * 10 + [("exact", True)]
    found = [None] * 11
    with pytest.raises(TimeoutError, match="changes faster than it can be searched"):
        searcher.search(None, 1, None, "auto", False)


def _segment(number, start, vectors, removed=None):
    return Segment(number, start, len(vectors), "", "", removed, np.asarray(vectors, np.float32))


def test_a_tree_is_asked_for_more_where_some_of_its_items_do_not_count():
    base = _segment(0, 0, np.eye(4), np.array([True, False, False, False]))
    other = _segment(1, 4, np.eye(4)[:1])
    asked = []

    class Tree:
        def search(self, queries, k, *, progress, wider):
            asked.append(k)
            order = np.argsort(-queries @ base.vectors.T, axis=1, kind="stable")[:, :k]
            return order, np.take_along_axis(queries @ base.vectors.T, order, axis=1)

    query = np.array([[0.8, 0.6, 0.0, 0.0]], np.float32)
    found = nearest.by_tree(Tree(), [base, other], base, query, 2)
    assert found.rows.tolist() == [[4, 1]] and asked == [4]
    # A filter that keeps none of the tree's items leaves it alone.
    found = nearest.by_tree(Tree(), [base, other], base, query, 1, np.array([0, 4]))
    assert found.rows.tolist() == [[4]] and len(asked) == 1
    found = nearest.by_tree(Tree(), [base, other], base, query, 2, np.array([2, 3, 4]))
    assert found.rows.tolist() == [[4, 2]]


def test_equal_scores_come_in_the_order_of_the_rows():
    parts = [_segment(0, 0, [[1, 0], [0, 1]]), _segment(1, 2, [[1, 0], [1, 0]])]
    assert nearest.exactly(parts, np.array([[1, 0]], np.float32), 3).rows.tolist() == [[0, 2, 3]]


def test_segments_are_merged_for_a_tree_where_none_holds_most_of_the_items(monkeypatch):
    merged = []

    @contextlib.contextmanager
    def changing():
        yield types.SimpleNamespace(before=types.SimpleNamespace(parts="all parts"))

    store = types.SimpleNamespace(changing=changing, snapshot=lambda: "after")
    monkeypatch.setattr(tuning.changes, "merge", lambda change, parts: merged.append(parts))
    tuner = tuning.Tuner(store)
    for largest, expected in ((9, []), (8, ["all parts"])):
        parts = [types.SimpleNamespace(count=count) for count in (largest, 10 - largest)]
        assert tuner._in_one_piece(types.SimpleNamespace(parts=parts, live=10)) == "after"
        assert merged == expected


def test_a_tree_is_measured_again_when_a_hundredth_has_changed(monkeypatch):
    measured = []
    monkeypatch.setattr(tuning, "_measure", lambda *given: measured.append(given) or 0.5)
    tuner = tuning.Tuner(None)
    tuned = types.SimpleNamespace(recall=0.99)
    ready = tuning.Ready(tuned, "base", "scann", 1000, 1000, None)

    def recall(live, end):
        return tuner.recall(types.SimpleNamespace(live=live, end=end), ready)

    assert recall(1000, 1000) == recall(1009, 1009) == 0.99 and not measured
    assert recall(1020, 1020) == recall(1020, 1020) == 0.5 and len(measured) == 1
    # As many were removed as added.
    assert recall(1000, 1010) == 0.5 and len(measured) == 2
    assert measured[0][1:] == (tuned, "base")


def test_searchers_that_an_index_does_not_use_are_removed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / trees.FOLDER / name).mkdir(parents=True)
    trees.drop_others(tmp_path, {"folder": "b"})
    assert [path.name for path in (tmp_path / trees.FOLDER).iterdir()] == ["b"]
    trees.drop_others(tmp_path, None)
    assert not list((tmp_path / trees.FOLDER).iterdir())


def test_a_table_for_postgresql(tmp_path):
    index = Index([[3, 4], [0, 1]], ["a\tb", "c\\d"], [{"x": "ü\n"}, {}], fingerprint="model-1")
    text = pgvector.write(index._store, tmp_path / "x.sql", "shop.items", None, False).read_text("utf-8")
    lines = text.splitlines()
    assert lines[3:6] == [
        "BEGIN;",
        "CREATE EXTENSION IF NOT EXISTS vector;",
        "CREATE TABLE shop.items (id text PRIMARY KEY, embedding vector(2) NOT NULL, metadata jsonb NOT NULL);",
    ]
    assert lines[6:8] == [
        "COMMENT ON TABLE shop.items IS 'Embeddings of the model model-1';",
        "COPY shop.items (id, embedding, metadata) FROM stdin;",
    ]
    assert lines[8].split("\t")[0] == "a\\tb" and lines[8].split("\t")[2] == '{"x": "ü\\\\n"}'
    assert lines[9] == "c\\\\d\t[0,1]\t{}"
    assert lines[10:] == [
        "\\.",
        "CREATE INDEX ON shop.items USING hnsw (embedding vector_cosine_ops);",
        "COMMIT;",
        "ANALYZE shop.items;",
    ]
    assert "USING hnsw" in pgvector._end("t", 2000) and "USING hnsw" not in pgvector._end("t", 2001)
    for table in ("1a", "a-b", "a.b.c", "a;b", ""):
        with pytest.raises(ValueError, match="`table` must be a name"):
            pgvector.write(index._store, tmp_path / "x.sql", table, None, False)


def test_a_store_in_a_folder_of_today_is_opened_from_anywhere(kept, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = Store(kept.relative_to(tmp_path))
    monkeypatch.chdir("/")
    assert store.directory == kept and store.snapshot().live == 3

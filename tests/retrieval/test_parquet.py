"""Embeddings in Parquet: the same items for us, for pyarrow and for DuckDB."""

import json

import numpy as np
import pytest

from tf_detreg.files import readable
from tf_detreg.retrieval import parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ITEMS = {
    "a.jpg": {"label": "mug", "price": 3, "new": True, "sizes": [1, 2]},
    "caf\udce9.jpg": {"label": "caf\udce9", "price": 2.5, "id": "inner", "vector": 1},
    "é\n.jpg": {"huge": 2**70, "new": False},
}


@pytest.fixture
def file(tmp_path):
    rows = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    table = parquet.schema(4, parquet.fields_of(ITEMS.values()), model="shop", fingerprint="probes")
    with parquet.writing(tmp_path / "x.parquet", table) as write:
        write(list(ITEMS)[:2], rows[:2], list(ITEMS.values())[:2])
        write(list(ITEMS)[2:], rows[2:], list(ITEMS.values())[2:])
    return tmp_path / "x.parquet", rows


def test_what_was_written_is_read(file):
    path, rows = file
    found = parquet.read(path)
    assert found.ids == ["a.jpg", "caf\\xe9.jpg", "é\n.jpg"]
    np.testing.assert_array_equal(found.embeddings, rows)
    expected = [dict(item) for item in ITEMS.values()]
    expected[1]["label"] = "caf\\xe9"
    assert found.metadata == expected
    assert (found.model, found.fingerprint) == ("shop", "probes")


def test_the_schema_is_one_that_others_read(file):
    schema = pq.read_schema(file[0])
    assert schema.field("id").type == pa.string() and schema.field("vector").type == pa.list_(pa.float32(), 4)
    assert schema.metadata[b"tf_detreg.model"] == b"shop"
    types = {name: str(schema.field(name).type) for name in schema.names[2:]}
    assert types == {
        "label": "string",
        "price": "double",
        "new": "bool",
        "sizes": "string",
        "id_": "string",
        "vector_": "int64",
        "huge": "string",
    }


def test_duckdb_searches_the_file(file):
    duckdb = pytest.importorskip("duckdb")
    path, rows = file
    query = rows[1] + 0.1
    sql = f"SELECT id FROM '{path}' ORDER BY list_cosine_similarity(vector::FLOAT[], ?::FLOAT[]) DESC"
    found = [id for (id,) in duckdb.execute(sql, [query.tolist()]).fetchall()]
    cosines = rows @ query / np.linalg.norm(rows, axis=1)
    assert found == [readable(list(ITEMS)[row]) for row in np.argsort(-cosines)]
    assert duckdb.execute(f"SELECT id FROM '{path}' WHERE price < 3").fetchall() == [("caf\\xe9.jpg",)]


def test_a_folder_is_read_in_the_order_of_its_files_with_integers_as_ids(tmp_path):
    table = parquet.schema(2, integer_ids=True)
    for name, ids in (("b", [3]), ("a", [1, -2])):
        with parquet.writing(tmp_path / f"{name}.parquet", table) as write:
            write(ids, np.eye(2)[: len(ids)])
    found = parquet.read(tmp_path)
    assert found.ids == [1, -2, 3] and found.metadata == [{}, {}, {}] and found.embeddings.shape == (3, 2)


def test_a_table_that_others_wrote_is_read(tmp_path):
    vector = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0, 0.0, 1.0], pa.float64()), 2)
    table = pa.table({"id": ["x", "y"], "vector": vector, "color": ["red", None]})
    pq.write_table(table, tmp_path / "theirs.parquet")
    found = parquet.read(tmp_path / "theirs.parquet")
    assert found.ids == ["x", "y"] and found.metadata == [{"color": "red"}, {}] and found.model is None
    assert found.embeddings.dtype == np.float32


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"must fit; received 1 ids, embeddings \(2, 2\)"):  # noqa: SIM117
        with parquet.writing(tmp_path / "x.parquet", parquet.schema(2)) as write:
            write(["a"], np.eye(2))
    assert list(tmp_path.iterdir()) == []


def test_files_that_hold_something_else_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["x"], "vector": ["text"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="a list of fixed length"):
        parquet.read(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="cannot be read"):
        parquet.read(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(ValueError, match=r"holds no \*\.parquet"):
        parquet.read(tmp_path)
    with pytest.raises(ValueError, match="must have kinds among"):
        parquet.schema(2, {"x": "date"})

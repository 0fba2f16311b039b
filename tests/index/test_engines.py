"""What answers a large index: usearch where ScaNN is not, compressed vectors, and exact search where nothing works."""

import json
import sqlite3
import sys

import numpy as np
import pytest

from tf_detreg.index import Index, searching, trees
from tf_detreg.retrieval import approximate, codes, graphs


def clustered(count=3000, dim=32, seed=5):
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.standard_normal((count // 10, dim)), 10, axis=0)
    return points + 0.5 * rng.standard_normal((count, dim))


@pytest.fixture
def large(monkeypatch):
    """3,000 items that are taken for many, where ScaNN is not installed."""
    monkeypatch.setattr(searching, "SCANN_FROM", 2000)
    monkeypatch.setattr(approximate, "available", lambda: "ScaNN cannot be loaded (test)")
    return Index(clustered(), metadata=[{"even": i % 2 == 0} for i in range(3000)])


# Threads build graphs and trees, so two builds differ. Twenty-five of usearch found 0.965 to 0.985 of the neighbors of
# these queries, which lie away from the items that it was tuned on.
FLOOR = 0.93


def share(found, true):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.ids, true.ids, strict=True)])


def check_scores(found, true):
    """Rescored neighbors that an approximate search found right have the scores of the exact one."""
    rows = [row for row, (a, b) in enumerate(zip(found.ids, true.ids, strict=True)) if a == b]
    assert len(rows) > 0.6 * len(true.ids)
    np.testing.assert_allclose(found.scores[rows], true.scores[rows], atol=2e-6)


def both(index, queries, k=5, asked="auto", **more):
    return index.search(queries, k, progress=False, engine=asked, **more), index.search(
        queries, k, engine="exact", **more
    )


@pytest.fixture
def queries(large):
    return large.embeddings[::20] + 0.1 * np.random.default_rng(2).standard_normal((150, 32))


@pytest.fixture
def queries_of():
    points = clustered()[::20]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points + 0.1 * np.random.default_rng(2).standard_normal((150, 32))


def test_usearch_answers_where_scann_is_not_installed(large, queries, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    recall = large.tune(progress=False)
    found, true = both(large, queries)
    assert found.engine == "usearch" and recall >= 0.99 and found.neighbor_recall == recall and found.notice is None
    assert share(found, true) >= FLOOR
    check_scores(found, true)
    # A wider one builds for longer than twice faiss' HNSW of this recall, a narrower one must look at more nodes.
    graph = large._tuner.present(large._store.snapshot()).tree.graph
    assert (graph.expansion_add, graph.connectivity) == (40, 16)
    # Kept on disk, mapped when it is opened, and used through changes.
    loaded = Index.load(large.save(tmp_path / "i"), verify=True)
    monkeypatch.setattr(approximate, "calibrate", lambda *_, **__: pytest.fail("it was built again"))
    assert loaded.search(queries, 5).ids == found.ids
    loaded.add(np.eye(32)[:1], ["new"])
    loaded.remove(where="even = true")
    found, true = both(loaded, queries)
    assert found.engine == "usearch" and share(found, true) >= FLOOR
    assert loaded.search(np.eye(32)[0], 1).ids == [["new"]]


def test_what_is_known_of_the_items_found_is_decoded_at_once(large, queries, monkeypatch):
    """A call of the decoder for each of thousands of items took as long as the search."""
    calls, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text, **more: calls.append(1) or loads(text, **more))
    found = large.search(queries, 5, engine="exact", progress=False)
    assert len(calls) < 10
    assert all(
        item == {"even": id % 2 == 0}
        for row in zip(found.ids, found.metadata, strict=True)
        for id, item in zip(*row, strict=True)
    )


def test_a_deeper_search_builds_deeper(large, queries):
    pytest.importorskip("usearch")
    large.tune(progress=False)
    assert large._store.snapshot().tree["depth"] == 10
    assert share(*both(large, queries, k=40)) >= 0.97
    assert large._store.snapshot().tree["depth"] == 40


@pytest.mark.parametrize("harm", ["flip", "newer", "older"])
def test_a_graph_that_cannot_be_used_is_refused_or_built_again(large, queries, tmp_path, harm, monkeypatch):
    pytest.importorskip("usearch")
    large.tune(progress=False)
    place = large.save(tmp_path / "i")
    (file,) = (place / "trees").glob("*/*")
    if harm == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match="does not match its checksum"):
            Index.load(place).search(queries, 3)
        return
    version = {"newer": "99.10", "older": "0.9"}[harm]
    monkeypatch.setattr(graphs.importlib.metadata, "version", lambda name: version)
    loaded = Index.load(place)
    assert loaded._tuner.present(loaded._store.snapshot()) is None
    found = loaded.search(queries, 3, progress=False)
    if harm == "newer":  # built again, once, for all
        assert found.engine == "usearch" and Index.load(place)._store.snapshot().tree["usearch"] == version
    else:  # who has the newer version keeps it
        assert found.engine == "exact" and "0.9 is installed" in found.notice and file.exists()
        assert Index.load(place)._store.snapshot().tree == large._store.snapshot().tree | loaded._store.snapshot().tree


def broken(monkeypatch, how):
    if how == "missing":
        monkeypatch.setitem(sys.modules, "usearch", None)
        monkeypatch.setitem(sys.modules, "usearch.index", None)
    elif how == "wrong":
        monkeypatch.setattr(graphs, "available", lambda: "usearch finds wrong items on this machine.")
    else:
        pytest.importorskip("usearch")

        def build(*_, **__):
            raise RuntimeError("a build for another processor")

        monkeypatch.setattr(graphs.Graph, "build", build)


@pytest.mark.parametrize("engine", ["auto", "usearch", "scann"])
@pytest.mark.parametrize("how", ["missing", "wrong", "fails"])
def test_an_engine_that_is_broken_leaves_the_search_to_the_exact_one(large, queries, monkeypatch, how, engine):
    broken(monkeypatch, how)
    found = large.search(queries, 5, engine=engine, progress=False)
    assert found.engine == "exact" and found.neighbor_recall == 1.0
    said = {"missing": "usearch cannot be used", "wrong": "finds wrong items", "fails": "another processor"}[how]
    assert ("ScaNN cannot be loaded" if engine == "scann" else said) in found.notice
    assert large.tune(engine=engine, progress=False) is None
    assert found.ids == large.search(queries, 5, engine="exact").ids


def test_a_searcher_that_finds_too_little_is_not_used(large, queries, monkeypatch):
    pytest.importorskip("usearch")
    monkeypatch.setattr(graphs.Graph, "candidates", lambda self, asked, count: np.zeros((len(asked), count), np.int64))
    found = large.search(queries, 5, progress=False)
    assert found.engine == "exact" and "of the true neighbors" in found.notice


def test_the_faster_of_two_engines_is_taken(monkeypatch):
    pytest.importorskip("usearch")
    if approximate.available() is not None:
        pytest.skip("ScaNN is not installed")
    index = Index(clustered())
    (base,) = index._store.snapshot().parts
    assert sorted(trees.fastest(base, 10, ["scann", "usearch"])) == ["scann", "usearch"]
    monkeypatch.setattr(approximate, "TRIALS_FROM", 2000)
    for order in (["usearch", "scann"], ["scann", "usearch"]):
        monkeypatch.setattr(trees, "fastest", lambda base, depth, names, order=order: order)
        monkeypatch.setattr(approximate, "LAYOUTS", approximate.LAYOUTS[:1])
        assert trees.build(base, 10, False)[0] == order[0]
    monkeypatch.setattr(searching, "SCANN_FROM", 2000)
    assert index.search(index.embeddings[:3], 3, engine="usearch", progress=False).engine == "usearch"
    assert index.search(index.embeddings[:3], 3, engine="scann", progress=False).engine == "scann"
    with pytest.raises(ValueError, match="`engine` must be one of"):
        index.tune(engine="float16")


@pytest.mark.parametrize(
    ("kind", "dimensions", "expected"),
    [("float16", None, 64), ("int8", None, 32), ("binary", None, 8), ("int8", 20, 20), ("binary", 16, 8)],
)
def test_compressed_vectors_find_what_the_vectors_find(large, queries, tmp_path, kind, dimensions, expected):
    done = large.compress(kind, dimensions, progress=False)
    assert done.bytes_an_item == expected and done.recall >= 0.98 and done.dimensions == (dimensions or 32)
    loaded = Index.load(large.save(tmp_path / "i"), verify=True)
    for index in (large, loaded):
        found, true = both(index, queries)
        assert found.engine == kind and found.neighbor_recall == done.recall and share(found, true) >= 0.96
        check_scores(found, true)
    codes_file = next((tmp_path / "i" / "trees").glob("*/codes.npy"))
    assert abs(codes_file.stat().st_size - 3000 * expected) <= 200
    assert f"{expected} bytes an item" in loaded.describe()["search"]


def test_a_compressed_index_changes_and_is_compressed_again(large, queries, tmp_path):
    large.compress("binary", target=0.93, progress=False)
    loaded = Index.load(large.save(tmp_path / "i"))
    assert loaded._store.snapshot().tree["target"] == 0.93
    loaded.add(np.eye(32)[:1], ["new"])
    loaded.remove(where="even = true")
    found, true = both(loaded, queries)
    assert found.engine == "binary" and share(found, true) >= 0.96
    assert loaded.search(np.eye(32)[0], 1).ids == [["new"]]
    loaded.compact(progress=False)
    (part,) = loaded._store.snapshot().parts
    assert loaded._store.snapshot().tree["segment"] == part.number
    assert loaded._store.snapshot().tree["target"] == 0.93
    found, true = both(loaded, queries)
    assert found.engine == "binary" and share(found, true) >= 0.96
    loaded.verify()


def files_of(place):
    return {file: file.read_bytes() for file in sorted((place / "trees").glob("*/*"))}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """An index on disk with the tree that ScaNN made on another machine, and a switch that hides ScaNN."""
    if (reason := approximate.available()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(searching, "SCANN_FROM", 2000)
    index = Index(clustered(), metadata=[{"even": i % 2 == 0} for i in range(3000)])
    assert index.tune(engine="scann", progress=False) >= 0.98
    place = index.save(tmp_path / "i")
    return place, lambda: monkeypatch.setattr(approximate, "available", lambda: "ScaNN cannot be loaded (test).")


@pytest.mark.parametrize("kind", ["scann", "product"])
def test_a_search_leaves_a_searcher_that_others_use(kept, queries_of, kind, monkeypatch):
    """It built a graph in the tree's place, on disk."""
    place, _ = kept
    if kind == "product":
        Index.load(place).compress("product", progress=False)
    true = Index.load(place).search(queries_of, 5, engine="exact")
    before, facts = files_of(place), Index.load(place)._store.snapshot().tree
    with monkeypatch.context() as patched:
        patched.setattr(approximate, "available", lambda: "ScaNN cannot be loaded (test).")
        with Index.load(place) as index:
            for _ in range(2):
                found = index.search(queries_of, 5, progress=False)
                assert found.engine == "exact" and found.ids == true.ids
                assert "was left as it is. ScaNN cannot be loaded (test). Exact search" in found.notice
                assert "`Index.tune` puts" in found.notice
            index.add(np.eye(32)[:1], ["new"])
            assert index.search(np.eye(32)[0], 1, progress=False).ids == [["new"]]
            index.remove(["new"])
            index.verify()
        assert files_of(place) == before and Index.load(place)._store.snapshot().tree == facts
    found = Index.load(place).search(queries_of, 5, progress=False)
    assert found.engine == kind and found.notice is None and share(found, true) >= FLOOR


def test_tune_replaces_it_and_says_so(kept, queries_of, caplog):
    pytest.importorskip("usearch")
    place, hide = kept
    hide()
    assert Index.load(place).tune(progress=False) >= 0.98
    assert "searcher of ScaNN was replaced by one of usearch" in caplog.text
    assert Index.load(place).search(queries_of, 5, progress=False).engine == "usearch"
    assert [file.name for file in files_of(place)] == ["graph.usearch"]


def test_asking_for_another_engine_builds_it_for_this_process_alone(kept, queries_of, monkeypatch):
    pytest.importorskip("usearch")
    place, _ = kept
    before = files_of(place)
    index = Index.load(place)
    found, true = both(index, queries_of, asked="usearch")
    assert found.engine == "usearch" and share(found, true) >= FLOOR and files_of(place) == before
    monkeypatch.setattr(approximate, "calibrate", lambda *_, **__: pytest.fail("it was built again"))
    index.remove(where="even = true")
    index.add(np.eye(32)[:1], ["new"])
    found, true = both(index, queries_of, asked="usearch")
    assert found.engine == "usearch" and share(found, true) >= FLOOR
    assert index.search(queries_of, 5).engine == "scann"


def test_a_search_where_nothing_can_be_written_keeps_its_tree_in_memory(large, queries, tmp_path, monkeypatch, caplog):
    """A volume that cannot be written to failed the search."""
    pytest.importorskip("usearch")
    index = Index.load(large.save(tmp_path / "i"))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(trees, "save", refuse)
    found, true = both(index, queries)
    assert found.engine == "usearch" and share(found, true) >= FLOOR
    assert "cannot be kept with the index" in caplog.text and "this process alone" in caplog.text
    monkeypatch.setattr(approximate, "calibrate", lambda *_, **__: pytest.fail("it was built again"))
    assert index.search(queries, 5).ids == found.ids
    assert index._store.snapshot().tree is None


def test_product_quantization_keeps_codes_alone_in_memory(kept, queries_of):
    place, hide = kept
    index = Index.load(place)
    done = index.compress("product", progress=False)
    # 32 dimensions in 16 codes of 4 bits, 4 bytes for the leaf, 55 centers of 32 floats.
    assert done.bytes_an_item == pytest.approx(8 + 4 + 55 * 128 / 3000) and done.recall >= 0.98
    loaded = Index.load(place, verify=True)
    names = {file.name: len(content) for file, content in files_of(place).items()}
    assert names["hashed_dataset.npy"] <= 3000 * 16 + 200 and not {"dataset.npy"} & set(names)
    for some in (index, loaded):
        found, true = both(some, queries_of)
        assert found.engine == "product" and found.neighbor_recall == done.recall and share(found, true) >= FLOOR
        check_scores(found, true)
    searcher = loaded._tuner.present(loaded._store.snapshot()).tree
    assert isinstance(searcher.gallery, np.memmap)
    own = np.arange(20)
    ids, scores = searcher.search(np.asarray(searcher.gallery[:20]), 5, own)
    assert not (ids == own[:, None]).any() and (np.diff(scores) <= 0).all()
    loaded.add(np.eye(32)[:1], ["new"])
    loaded.remove(where="even = true")
    found, true = both(loaded, queries_of)
    assert found.engine == "product" and share(found, true) >= FLOOR
    assert loaded.search(np.eye(32)[0], 1).ids == [["new"]]
    loaded.compact(progress=False)
    assert both(loaded, queries_of)[0].engine == "product"
    assert "bytes an item" in loaded.describe()["search"]
    hide()
    with pytest.raises(ImportError, match="`kind`='product' is ScaNN's"):
        loaded.compress("product")


def test_compression_by_hand():
    vectors = np.asarray([[0.6, -0.8], [1.0, 0.0], [-0.6, 0.8]], np.float32)
    made = codes.Codes.build(vectors, 1, codes.Layout("int8"))
    assert made.codes.tolist() == [[76, -127], [127, 0], [-76, 127]]
    none = np.empty((0, 0), np.float32)
    bits = codes.Codes("binary", none, none, np.asarray([1 / 3, 0.0], np.float32), vectors).encoded(vectors)
    # Signs 10, 10, 01 at the front of a byte.
    assert [int(row[0]) & 0xFF for row in bits] == [0b10000000, 0b10000000, 0b01000000]
    turned = codes.Codes.build(vectors, 1, codes.Layout("binary")).basis
    np.testing.assert_allclose(turned.T @ turned, np.eye(2), atol=1e-6)
    line = np.outer(np.linspace(-1, 1, 50), [0.6, 0.8, 0.0]).astype(np.float32)
    kept = codes.Codes.build(line, 1, codes.Layout("float16", 1))
    np.testing.assert_allclose(np.abs(kept.basis[:, 0]), [0.6, 0.8, 0.0], atol=1e-6)


def test_own_items_are_not_found_and_short_lists_are_filled():
    vectors = clustered(200).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = codes.Codes.build(vectors, 5, codes.Layout("int8"))
    own = np.arange(20)
    ids, scores = made.search(vectors[:20], 5, own)
    assert not (ids == own[:, None]).any() and (np.diff(scores) <= 0).all()
    ids, scores = made.search(vectors[:2], 200, own[:2])
    assert (ids[:, -1] == -1).all() and np.isneginf(scores[:, -1]).all() and (ids[:, :-1] >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int4",), "`kind` must be one of"),
        (("int8", 0), "`dimensions` must be a whole number from 1 to 32"),
        (("int8", 33), "received 33"),
        (("product", 16), "`dimensions` must be None"),
    ],
)
def test_what_cannot_be_compressed_is_told(large, arguments, message):
    with pytest.raises(ValueError, match=message):
        large.compress(*arguments)
    with pytest.raises(ValueError, match="too few to be compressed"):
        Index(np.eye(32)).compress()


def test_a_searcher_of_a_newer_version_is_named(large, tmp_path):
    place = large.save(tmp_path / "i")
    large.compress(progress=False)
    place = large.save(tmp_path / "j")
    with sqlite3.connect(place / "items.sqlite") as connection:
        connection.execute("UPDATE facts SET value = replace(value, '\"int8\"', '\"int3\"') WHERE name = 'tree'")
    connection.close()
    with pytest.raises(ValueError, match="'int3', which this version does not know"):
        Index.load(place).search(large.embeddings[0], 1)

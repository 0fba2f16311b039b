"""The gallery on disk."""

import contextlib
import json
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tf_detreg import retrieval
from tf_detreg.retrieval import Index, approximate, exact, index_folder, saved_tree
from tf_detreg.retrieval import index as index_module


@pytest.fixture
def index():
    rng = np.random.default_rng(0)
    return Index(
        rng.standard_normal((20, 6)),
        ids=[f"item-{i}" for i in range(20)],
        metadata=[{"label": "even" if i % 2 == 0 else "odd", "shop": i % 3} for i in range(20)],
        fingerprint="model-1",
    )


@pytest.fixture
def large(monkeypatch):
    """3,000 items that are taken for many."""
    pytest.importorskip("scann")
    monkeypatch.setattr(index_module, "_SCANN_FROM", 2000)
    rng = np.random.default_rng(5)
    points = np.repeat(rng.standard_normal((300, 16)), 10, axis=0) + 0.5 * rng.standard_normal((3000, 16))
    return Index(points, metadata=[{"even": i % 2 == 0} for i in range(3000)])


def test_search_agrees_with_search_without_an_index(index):
    queries = np.random.default_rng(1).standard_normal((4, 6))
    matches = index.search(queries, k=5)
    ids, scores = retrieval.search(queries, index.embeddings, k=5)
    assert matches.ids == [[f"item-{i}" for i in row] for row in ids]
    np.testing.assert_array_equal(matches.scores, scores)
    assert (matches.engine, matches.neighbour_recall, matches.notice) == ("exact", 1.0, None)
    first = next(matches.rows())
    assert first["id"] == matches.ids[0][0] and first["rank"] == 1 and first["label"] in ("even", "odd")


def test_one_query_may_be_a_vector(index):
    assert index.search(index.embeddings[7], k=1).ids == [["item-7"]]


def test_where_keeps_items_with_these_values(index):
    matches = index.search(index.embeddings[:3], k=3, where={"label": "odd", "shop": [0, 1]})
    assert all(item["label"] == "odd" and item["shop"] in (0, 1) for row in matches.metadata for item in row)
    with pytest.raises(ValueError, match="matches no item"):
        index.search(index.embeddings[0], k=1, where={"label": "neither"})
    with pytest.raises(ValueError, match="larger than the gallery"):
        index.search(index.embeddings[0], k=11, where={"label": "odd"})


def test_where_takes_a_set_also_of_items_that_hold_lists():
    tagged = Index(np.eye(3), metadata=[{"tag": ["a"]}, {"tag": "a"}, {}])
    assert tagged.search(np.ones(3), k=1, where={"tag": {"a", "b"}}).ids == [[1]]


def test_metadata_is_found_by_id_also_after_adding():
    index = Index(np.eye(2), ["a", 1], [{"n": 0}, {"n": 1}])
    assert index.metadata("a") == {"n": 0} and index.metadata(np.int64(1)) == {"n": 1}
    index.add(np.eye(2), ["b", "c"], [{"n": 2}, {"n": 3}])
    assert index.metadata("c") == {"n": 3}
    for unknown in ("d", ["a"], None):
        with pytest.raises(ValueError, match="is not in the index"):
            index.metadata(unknown)


def test_save_and_load_keep_everything_and_map_the_vectors(index, tmp_path):
    loaded = Index.load(index.save(tmp_path / "shop.index"))
    assert isinstance(loaded._vectors, np.memmap)
    assert loaded.ids == index.ids and loaded.fingerprint == "model-1"
    assert loaded.metadata("item-4") == index.metadata("item-4")
    ours, theirs = (i.search(index.embeddings[:5] + 0.1, k=4) for i in (index, loaded))
    assert ours.ids == theirs.ids
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_names_with_line_separators_and_undecodable_bytes_survive(tmp_path):
    names = ["a\u2028b", "c\x85d", "e\nf", "\udcff.jpg"]  # the last as Python reads a file name that is not UTF-8
    loaded = Index.load(Index(np.eye(4), names, [{"name": name} for name in names]).save(tmp_path / "i"))
    assert loaded.ids == names
    assert [loaded.metadata(name)["name"] for name in names] == names


def test_a_manifest_says_what_it_holds(index, tmp_path):
    manifest = json.loads((index.save(tmp_path / "shop.index") / "manifest.json").read_text())
    assert (manifest["count"], manifest["dimension"], manifest["model"]) == (20, 6, "model-1")
    assert manifest["normalisation"] == "unit length"


def test_add_and_save_over_the_old_index(index, tmp_path):
    index.save(tmp_path / "i")
    loaded = Index.load(tmp_path / "i")
    loaded.add(np.eye(6)[:2], ids=["new-0", "new-1"], metadata=[{"label": "new"}] * 2)
    loaded.save(tmp_path / "i")
    again = Index.load(tmp_path / "i")
    assert len(again) == 22
    assert again.search(np.eye(6)[1], k=1).ids == [["new-1"]]
    assert [p.name for p in tmp_path.iterdir()] == ["i"]
    with pytest.raises(ValueError, match="occurs twice"):
        again.add(np.eye(6)[:1], ids=["item-3"])
    with pytest.raises(ValueError, match="another model"):
        again.add(np.eye(6)[:1], ids=["x"], fingerprint="model-2")


def test_queries_of_another_model_are_refused(index):
    with pytest.raises(ValueError, match="another model"):
        index.search(index.embeddings[0], fingerprint="model-2")
    with pytest.raises(ValueError, match="7 dimensions"):
        index.search(np.ones((1, 7)))
    index.search(index.embeddings[0], k=1, fingerprint="model-1")


@pytest.mark.parametrize("file", ["embeddings.npy", "items.jsonl", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_damaged_index_is_refused(index, tmp_path, file, harm):
    victim = index.save(tmp_path / "i") / file
    content = bytearray(victim.read_bytes())
    if harm == "cut":
        victim.write_bytes(content[: len(content) // 2])
    elif harm == "flip" and file != "manifest.json":
        content[-3] ^= 1
        victim.write_bytes(content)
    elif harm == "flip":
        victim.write_text(victim.read_text().replace('"count": 20', '"count": 21'))
    else:
        victim.unlink()
    with pytest.raises(ValueError, match=r"damaged|not an index"):
        Index.load(tmp_path / "i")


def test_a_failed_save_leaves_the_old_index_whole(index, tmp_path, monkeypatch):
    index.save(tmp_path / "i")
    monkeypatch.setattr(index_folder, "_sha256", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        index.save(tmp_path / "i")
    monkeypatch.undo()
    assert len(Index.load(tmp_path / "i")) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["i"]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda index: retrieval.Index(np.eye(2), metadata=["a", "b"]), r"`metadata` must be mappings.*'a' .row 0"),
        (lambda index: retrieval.Index(np.eye(2), metadata=[{"a": 1}, None]), r"received None .row 1"),
        (lambda index: retrieval.Index(np.eye(2), metadata=[{1: 1}, {}]), "keys are strings"),
        (lambda index: index.search(index.embeddings, k=1, where="daisy"), "`where` must be a mapping.*'daisy'"),
        (lambda index: index.add(np.eye(2)), r"`embeddings` have 2 dimensions and the index has"),
        (lambda index: index.add(None), "`embeddings` must be vectors"),
    ],
)
def test_what_is_wrong_is_named(index, act, message):
    with pytest.raises(ValueError, match=message):
        act(index)


def test_bad_items_are_refused(index, tmp_path):
    with pytest.raises(ValueError, match="occurs twice"):
        Index(np.eye(2), ids=["a", "a"])
    with pytest.raises(ValueError, match="one id for each"):
        Index(np.eye(2), ids=["a"])
    with pytest.raises(ValueError, match="one mapping for each"):
        Index(np.eye(2), metadata=[{}])
    with pytest.raises(ValueError, match="strings or integers"):
        Index(np.eye(2), ids=[1.5, 2])
    with pytest.raises(ValueError, match="JSON"):
        Index(np.eye(2), metadata=[{"a": object()}, {}]).save(tmp_path / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is not an index"):
        index.save(tmp_path / "folder")
    with pytest.raises(ValueError, match="not in the index"):
        index.metadata("nobody")


def test_a_large_index_answers_by_a_tuned_tree(large):
    points = large.embeddings
    matches, true = large.search(points[:100], k=10), large.search(points[:100], k=10, engine="exact")
    assert matches.engine == "scann" and matches.neighbour_recall >= 0.99
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(matches.ids, true.ids, strict=True)])
    assert shared >= 0.97
    assert large.search(points[:2], k=3, where={"even": True}, engine="scann").notice.endswith("cannot filter.")


def test_a_tree_for_one_neighbour_is_not_tuned_on_items_that_find_themselves(large):
    """Every item is its own nearest neighbour, in whatever leaf it lies: that says nothing about real queries."""
    queries = large.embeddings[:300] + 0.3 * np.random.default_rng(1).standard_normal((300, 16))
    found, true = large.search(queries, k=1), large.search(queries, k=1, engine="exact")
    assert found.engine == "scann"
    assert np.mean(found.places == true.places) >= 0.97


def test_a_tree_is_saved_and_answers_the_same_without_being_built_again(large, tmp_path, monkeypatch):
    recall = large.tune()
    loaded = Index.load(large.save(tmp_path / "i"))
    files = {file.name for file in (tmp_path / "i" / "tree").iterdir()}
    assert files == set(saved_tree.files(soar=False))  # no second copy of the vectors, and nothing pickled
    monkeypatch.setattr(approximate, "calibrate", lambda *_, **__: pytest.fail("the tree was built again"))
    ours, theirs = (index.search(large.embeddings[:50], k=7) for index in (large, loaded))
    assert (theirs.engine, theirs.neighbour_recall) == ("scann", recall)
    assert ours.ids == theirs.ids
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_a_tree_with_items_in_two_leaves_is_saved_too(large, tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "LAYOUTS", (approximate.Layout(soar=True),))
    large.tune()
    loaded = Index.load(large.save(tmp_path / "i"))
    assert loaded._tree.tree.layout.soar
    assert loaded.search(large.embeddings[:50], k=7).ids == large.search(large.embeddings[:50], k=7).ids


@pytest.mark.parametrize("harm", ["flip", "remove", "unknown file", "other settings", "no checksum"])
def test_a_damaged_tree_is_refused(large, tmp_path, harm):
    large.tune()
    place = large.save(tmp_path / "i")
    victim, manifest = place / "tree" / "hashed_dataset.npy", json.loads((place / "manifest.json").read_text())
    if harm == "flip":
        content = bytearray(victim.read_bytes())
        content[-3] ^= 1
        victim.write_bytes(content)
    elif harm == "remove":
        victim.unlink()
    elif harm == "unknown file":
        manifest["files"]["tree/scann_docids.pkl"] = {"bytes": 0, "sha256": ""}
    elif harm == "no checksum":
        del manifest["files"]["embeddings.npy"]["sha256"]
    else:
        del manifest["tree"]["visited"]
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="damaged"):
        Index.load(place)


def test_a_tree_of_another_version_of_scann_is_built_again(large, tmp_path):
    large.tune()
    place = large.save(tmp_path / "i")
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["tree"]["scann"] = "0.0.1"
    (place / "manifest.json").write_text(json.dumps(manifest))
    loaded = Index.load(place)
    assert loaded._tree is None
    assert loaded.search(large.embeddings[:5], k=3).engine == "scann"


def test_without_scann_a_saved_tree_is_passed_over_and_exact_search_says_so(large, tmp_path, monkeypatch):
    large.tune()
    place = large.save(tmp_path / "i")
    monkeypatch.setitem(sys.modules, "scann", None)
    matches = Index.load(place).search(large.embeddings[:5], k=3)
    assert matches.engine == "exact" and "ScaNN cannot be loaded" in matches.notice
    assert large.tune() is None


def test_new_items_discard_the_tree(large, tmp_path):
    large.tune()
    large.add(np.eye(16)[:1])
    assert not (large.save(tmp_path / "i") / "tree").exists()
    assert large.search(np.eye(16)[0], k=1).ids == [[3000]]


def test_a_small_index_needs_no_tree(index):
    assert index.tune(5) is None
    with pytest.raises(ValueError, match="larger than the gallery"):
        index.tune(21)


def test_fingerprint_changes_with_the_weights():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    before = retrieval.fingerprint(model)
    model.layers[0].bias.assign([0.0, 1e-3])
    assert retrieval.fingerprint(model) != before


def test_the_fingerprint_of_a_metric_model_is_its_embedders():
    import keras

    from tf_detreg import heads, losses, training

    embedder = keras.Sequential([keras.Input((3,)), heads.Linear(2)])
    model = training.MetricModel(embedder, losses.ProxyAnchor(2), rival=heads.Linear(2))
    assert retrieval.fingerprint(model) == retrieval.fingerprint(embedder)


def test_searches_that_overlap_put_the_threads_back_as_they_were():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        first.enter_context(exact.settled)
        second.enter_context(exact.settled)
        first.close()
        assert set(threads()) == {1}, "the second search still runs"
        second.close()
        assert threads() == before

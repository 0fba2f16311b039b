"""The gallery on disk."""

import contextlib
import json
import pathlib
import shutil
import sqlite3
import sys
import types

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tests import needs
from tf_detreg import retrieval
from tf_detreg.index import Index, searching, segments, store, tuning, version_1
from tf_detreg.retrieval import approximate, exact, saved_tree


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
    needs.scann()
    monkeypatch.setattr(searching, "SCANN_FROM", 2000)
    rng = np.random.default_rng(5)
    points = np.repeat(rng.standard_normal((300, 16)), 10, axis=0) + 0.5 * rng.standard_normal((3000, 16))
    return Index(points, metadata=[{"even": i % 2 == 0} for i in range(3000)])


def test_search_agrees_with_search_without_an_index(index):
    queries = np.random.default_rng(1).standard_normal((4, 6))
    matches = index.search(queries, k=5)
    ids, scores = retrieval.search(queries, index.embeddings, k=5)
    assert matches.ids == [[f"item-{i}" for i in row] for row in ids]
    np.testing.assert_array_equal(matches.scores, scores)
    assert (matches.engine, matches.neighbor_recall, matches.notice) == ("exact", 1.0, None)
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
    loaded = Index.load(index.save(tmp_path / "shop.index"), verify=True)
    assert isinstance(loaded.embeddings.base, np.memmap)
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


def test_a_loaded_index_keeps_each_change_on_disk(index, tmp_path):
    index.save(tmp_path / "i")
    loaded = Index.load(tmp_path / "i")
    loaded.add(np.eye(6)[:2], ids=["new-0", "new-1"], metadata=[{"label": "new"}] * 2)
    again = Index.load(tmp_path / "i")
    assert len(again) == 22
    assert again.search(np.eye(6)[1], k=1).ids == [["new-1"]]
    assert [p.name for p in tmp_path.iterdir()] == ["i"]
    with pytest.raises(ValueError, match="occurs twice"):
        again.add(np.eye(6)[:2], ids=["fresh", "item-3"])
    assert len(again) == 22 and "fresh" not in again
    with pytest.raises(ValueError, match="another model"):
        again.add(np.eye(6)[:1], ids=["x"], fingerprint="model-2")


def test_an_index_saved_over_another_takes_its_place_in_one_step(index, tmp_path):
    place = Index(np.eye(3), ["a", "b", "c"]).save(tmp_path / "i")
    reader = Index.load(place)
    assert reader.search(np.eye(3)[0], k=1).ids == [["a"]]
    index.index_field("label")
    index.save(place)
    assert (len(reader), reader.dimension, reader.fingerprint, reader.fields) == (20, 6, "model-1", ("label",))
    assert reader.search(index.embeddings[4], k=1).ids == [["item-4"]]
    assert [file.name for file in (place / "segments").iterdir()] == [reader._store.snapshot().parts[0].file]
    reader.verify()


@pytest.fixture
def old(tmp_path):
    """An index that version 0.1.0 wrote, with vectors (3, 4, 0), (0, 1, 0) and (0, 0, 2)."""
    return shutil.copytree(pathlib.Path(__file__).parents[1] / "data" / "index_0_1", tmp_path / "old")


def test_an_index_of_version_0_1_is_read_and_saved_in_todays_form(old):
    loaded = Index.load(old)
    assert (loaded.ids, loaded.fingerprint) == (["mug", 7, "\udcff.jpg"], "0123456789abcdef")
    assert list(loaded.rows('label = "ü"')) == [{"id": "\udcff.jpg", "label": "ü"}]
    np.testing.assert_allclose(loaded.embeddings, [[0.6, 0.8, 0], [0, 1, 0], [0, 0, 1]], atol=1e-6)
    loaded.save(old)
    assert not (old / "manifest.json").exists()
    assert Index.load(old, verify=True).ids == loaded.ids


@pytest.mark.parametrize("file", ["embeddings.npy", "items.jsonl", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_damaged_index_of_version_0_1_is_refused(old, file, harm):
    content = bytearray((old / file).read_bytes())
    if harm == "remove":
        (old / file).unlink()
    elif harm == "cut":
        (old / file).write_bytes(content[: len(content) // 2])
    else:
        content[content.find(b'"bytes"') if file == "manifest.json" else -3] ^= 1
        (old / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged|not an index"):
        Index.load(old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.pop("model"), "manifest.json is incomplete"),
        (lambda manifest: manifest["files"]["items.jsonl"].pop("bytes"), "manifest.json is incomplete"),
        (lambda manifest: manifest["files"]["embeddings.npy"].pop("sha256"), "manifest.json is incomplete"),
        (lambda manifest: manifest["files"].pop("items.jsonl"), "manifest.json cannot be read"),
        (lambda manifest: manifest.pop("format"), "manifest.json cannot be read"),
        (lambda manifest: manifest.update(sha256="0"), "does not match its checksum"),
        (lambda manifest: manifest.update(format=2), "is an index of format 2; this version reads format 1"),
    ],
)
def test_a_manifest_of_version_0_1_that_lacks_something_is_refused(old, change, message):
    manifest = json.loads((old / "manifest.json").read_text())
    change(manifest)
    (old / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        version_1.read(old)


def test_an_index_of_version_0_1_may_be_of_no_known_model(old):
    manifest = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps({**manifest, "model": None}))
    assert version_1.read(old).fingerprint is None


def test_the_size_on_disk_is_that_of_all_files(index, tmp_path):
    assert index.bytes_on_disk() == 0
    assert index.describe()["on disk"].startswith("0.0 MB")
    index.save(tmp_path / "i")
    loaded = Index.load(tmp_path / "i")
    sizes = [file.stat().st_size for file in (tmp_path / "i").rglob("*") if file.is_file()]
    assert len(sizes) > 1 and loaded.bytes_on_disk() == sum(sizes)


@pytest.mark.parametrize(
    ("live", "end", "measured"),
    [
        (1000, 1000, False),
        (1009, 1009, False),
        (991, 1000, False),
        (1011, 1011, True),
        (989, 1000, True),
        (1000, 1006, True),
    ],
)
def test_the_recall_is_measured_again_when_a_hundredth_has_changed(live, end, measured, monkeypatch):
    """Added are the rows beyond the end that the tree knew; removed is what is missing of all that were there."""
    calls = []
    monkeypatch.setattr(tuning, "_measure", lambda *parts: calls.append(parts) or 0.5)
    tuner, state = tuning.Tuner(None), types.SimpleNamespace(live=live, end=end)
    ready = types.SimpleNamespace(tuned=types.SimpleNamespace(recall=0.9), base="base", live=1000, end=1000)
    for _ in range(2):
        assert tuner.recall(state, ready) == (0.5 if measured else 0.9)
    assert calls == [(state, ready.tuned, "base")] * measured
    if measured:
        other = types.SimpleNamespace(**{**vars(ready), "tuned": types.SimpleNamespace(recall=0.8)})
        assert tuner.recall(state, other) == 0.5 and len(calls) == 2


def test_queries_of_another_model_are_refused(index):
    with pytest.raises(ValueError, match="another model"):
        index.search(index.embeddings[0], fingerprint="model-2")
    with pytest.raises(ValueError, match="7 dimensions"):
        index.search(np.ones((1, 7)))
    index.search(index.embeddings[0], k=1, fingerprint="model-1")


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "header"])
def test_damaged_vectors_are_told(index, tmp_path, harm):
    (victim,) = (index.save(tmp_path / "i") / "segments").iterdir()
    content = bytearray(victim.read_bytes())
    if harm == "remove":
        victim.unlink()
    else:
        content[{"flip": -3, "header": 2, "cut": 0}[harm]] ^= 1
        victim.write_bytes(content[: len(content) // 2] if harm == "cut" else content)
    with pytest.raises(ValueError, match=r"'.*i' is damaged \(.*segments/00000001.npy|is damaged .*is missing"):
        Index.load(tmp_path / "i", verify=True)


def test_a_damaged_item_is_told_by_a_search_and_by_verify(index, tmp_path):
    place = index.save(tmp_path / "i")
    with contextlib.closing(sqlite3.connect(place / "items.sqlite")) as connection, connection:
        connection.execute("UPDATE items SET metadata = replace(metadata, 'even', 'odd!') WHERE id = 'item-4'")
    damaged = Index.load(place)
    for act in (damaged.verify, lambda: damaged.search(index.embeddings[4], k=1)):
        with pytest.raises(ValueError, match=r"damaged .the item 'item-4' does not match its checksum"):
            act()


@pytest.mark.parametrize("harm", ["empty", "text", "cut", "no table", "newer"])
def test_a_damaged_store_is_told_in_one_sentence(index, tmp_path, harm):
    place = index.save(tmp_path / "i")
    file = place / "items.sqlite"
    if harm == "newer":
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE facts SET value = '3' WHERE name = 'format'")
    elif harm == "no table":
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DROP TABLE segments")
    else:
        content = file.read_bytes()
        file.write_bytes({"empty": b"", "text": b"no database at all" * 100, "cut": content[:3000]}[harm])
    with pytest.raises(ValueError, match="is an index of format 3" if harm == "newer" else "is damaged"):
        Index.load(place, verify=True)


def test_a_failed_change_leaves_the_index_as_it_was(index, tmp_path, monkeypatch):
    loaded = Index.load(index.save(tmp_path / "i"))
    monkeypatch.setattr(segments.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    for act in (lambda: loaded.add(np.eye(6)[:1], ["x"]), loaded.compact, lambda: loaded.remove(["item-0"])):
        with contextlib.suppress(OSError):
            act()
    monkeypatch.undo()
    assert list(loaded) == [f"item-{i}" for i in range(1, 20)], "removing writes no vectors"
    loaded.add(np.eye(6)[:1], ["y"])
    assert Index.load(tmp_path / "i", verify=True).ids[-1] == "y"
    assert len(list((tmp_path / "i" / "segments").iterdir())) == len(loaded._store.snapshot().parts), (
        "nothing is left over"
    )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda index: Index(np.eye(2), metadata=["a", "b"]), r"`metadata` must be mappings.*'a' .row 0"),
        (lambda index: Index(np.eye(2), metadata=[{"a": 1}, None]), r"received None .row 1"),
        (lambda index: Index(np.eye(2), metadata=[{1: 1}, {}]), "keys are strings"),
        (lambda index: index.search(index.embeddings, k=1, where="daisy"), "`where` cannot be read: at its end"),
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
        Index(np.eye(2), metadata=[{"a": object()}, {}])
    with pytest.raises(ValueError, match="64 bits"):
        Index(np.eye(2), ids=[2**63, 1])
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is not an index"):
        index.save(tmp_path / "folder")
    with pytest.raises(ValueError, match="not in the index"):
        index.metadata("nobody")


def test_a_large_index_answers_by_a_tuned_tree(large):
    points = large.embeddings
    matches, true = large.search(points[:100], k=10), large.search(points[:100], k=10, engine="exact")
    assert matches.engine == "scann" and matches.neighbor_recall >= 0.99
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(matches.ids, true.ids, strict=True)])
    assert shared >= 0.95


def test_a_tree_for_one_neighbor_is_not_tuned_on_items_that_find_themselves(large):
    """Every item is its own nearest neighbor, in whatever leaf it lies: that says nothing about real queries."""
    queries = large.embeddings[:300] + 0.3 * np.random.default_rng(1).standard_normal((300, 16))
    found, true = large.search(queries, k=1), large.search(queries, k=1, engine="exact")
    assert found.engine == "scann"
    assert np.mean(found.positions == true.positions) >= 0.95


def test_a_tree_is_saved_and_answers_the_same_without_being_built_again(large, tmp_path, monkeypatch):
    recall = large.tune()
    loaded = Index.load(large.save(tmp_path / "i"), verify=True)
    (folder,) = (tmp_path / "i" / "trees").iterdir()
    # No second copy of the vectors, and nothing pickled.
    assert {file.name for file in folder.iterdir()} == set(saved_tree.files({"soar": False}))
    monkeypatch.setattr(approximate, "calibrate", lambda *_, **__: pytest.fail("the tree was built again"))
    ours, theirs = (index.search(large.embeddings[:50], k=7) for index in (large, loaded))
    assert (theirs.engine, theirs.neighbor_recall) == ("scann", recall)
    assert ours.ids == theirs.ids
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_a_tree_with_items_in_two_leaves_is_saved_too(large, tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "LAYOUTS", (approximate.Layout(soar=True),))
    large.tune()
    loaded = Index.load(large.save(tmp_path / "i"))
    assert loaded._store.snapshot().tree["soar"]
    assert loaded.search(large.embeddings[:50], k=7).ids == large.search(large.embeddings[:50], k=7).ids


@pytest.mark.parametrize("harm", ["flip", "remove", "unknown file", "other settings"])
def test_a_damaged_tree_is_refused(large, tmp_path, harm):
    large.tune()
    place = large.save(tmp_path / "i")
    (folder,) = (place / "trees").iterdir()
    victim = folder / "hashed_dataset.npy"
    with contextlib.closing(sqlite3.connect(place / "items.sqlite")) as connection, connection:
        tree = json.loads(connection.execute("SELECT value FROM facts WHERE name = 'tree'").fetchone()[0])
        if harm == "flip":
            content = bytearray(victim.read_bytes())
            content[-3] ^= 1
            victim.write_bytes(content)
        elif harm == "remove":
            victim.unlink()
        elif harm == "unknown file":
            tree["files"]["scann_docids.pkl"] = ""
        else:
            del tree["visited"]
        connection.execute("UPDATE facts SET value = ? WHERE name = 'tree'", (json.dumps(tree),))
    with pytest.raises(ValueError, match="damaged"):
        Index.load(place).search(large.embeddings[0], k=1)


def test_a_tree_of_an_older_version_of_scann_is_built_again_and_one_of_a_newer_is_left(large, tmp_path, monkeypatch):
    large.tune()
    place = large.save(tmp_path / "i")
    for here, engine in (("99.0.1", "scann"), ("0.0.1", "exact")):
        monkeypatch.setattr(saved_tree.importlib.metadata, "version", lambda name, here=here: here)
        loaded = Index.load(place)
        assert loaded._tuner.present(loaded._store.snapshot()) is None
        found = loaded.search(large.embeddings[:5], k=3)
        assert found.engine == engine and (engine == "scann" or "ScaNN 99.0.1 wrote it" in found.notice)
        assert loaded._store.snapshot().tree["scann"] == "99.0.1"


def test_without_scann_a_saved_tree_is_passed_over_and_exact_search_says_so(large, tmp_path, monkeypatch):
    large.tune()
    place = large.save(tmp_path / "i")
    for name in ("scann", "usearch", "usearch.index"):
        monkeypatch.setitem(sys.modules, name, None)
    matches = Index.load(place).search(large.embeddings[:5], k=3)
    assert matches.engine == "exact" and "ScaNN cannot be loaded" in matches.notice
    assert Index.load(place).tune() is None


def test_a_tree_serves_on_after_changes(large, tmp_path, monkeypatch):
    large.tune()
    loaded = Index.load(large.save(tmp_path / "i"))
    monkeypatch.setattr(approximate, "calibrate", lambda *_, **__: pytest.fail("the tree was built again"))
    queries = large.embeddings[:200] + 0.1 * np.random.default_rng(2).standard_normal((200, 16))
    loaded.add(np.eye(16)[:1], ["new"])
    assert loaded.search(np.eye(16)[0], k=1).ids == [["new"]]
    loaded.remove(list(range(0, 600, 2)))
    loaded.upsert(large.embeddings[1000:1010], list(range(1000, 1010)), [{"even": None}] * 10)
    found, true = (loaded.search(queries, k=5, engine=engine) for engine in ("scann", "exact"))
    assert found.engine == "scann" and 0.97 <= found.neighbor_recall <= 1
    assert not {id for row in found.ids for id in row} & set(range(0, 600, 2))
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.ids, true.ids, strict=True)]) >= 0.95
    loose = loaded.search(queries, k=5, where={"even": True})
    assert loose.engine == "scann" and all(item["even"] for row in loose.metadata for item in row)
    true = loaded.search(queries, k=5, where="even = true", engine="exact")
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(loose.ids, true.ids, strict=True)]) >= 0.95
    tight = loaded.search(queries[:3], k=2, where={"even": None}, engine="scann")
    assert tight.engine == "exact" and "keeps few" in tight.notice


def test_recall_is_measured_again_once_a_hundredth_has_changed(large):
    large.tune()
    before = large.search(large.embeddings[:1], k=5).neighbor_recall
    large.remove(list(range(10)))
    assert large.search(large.embeddings[:1], k=5).neighbor_recall == before
    # Vectors that the tree lists in one leaf and that now are nearest to everything: what it finds of them is measured.
    large.remove(list(range(10, 1500)))
    after = large.search(large.embeddings[:1], k=5).neighbor_recall
    assert after != before and 0.9 < after <= 1


def test_compacting_keeps_the_order_and_drops_what_was_removed(large, tmp_path):
    loaded = Index.load(large.save(tmp_path / "i"))
    loaded.tune()
    loaded.remove(where="even = true")
    loaded.upsert(np.eye(16)[:1], [7], [{"even": False, "new": 1}])
    expected = [id for id in loaded]
    query = large.embeddings[:20]
    before = loaded.search(query, k=4, engine="exact")
    loaded.compact()
    (part,) = loaded._store.snapshot().parts
    assert (part.count, part.removed) == (1500, None)
    assert list(loaded) == expected == [*(n for n in range(1, 3000, 2) if n != 7), 7]
    after = loaded.search(query, k=4, engine="exact")
    assert after.ids == before.ids and loaded.metadata(7) == {"even": False, "new": 1}
    assert not list((tmp_path / "i" / "trees").iterdir()), "fewer items than a tree is for"
    loaded.verify()
    loaded.compact()  # nothing to do


def test_many_small_additions_leave_few_files(tmp_path):
    index = Index.create(tmp_path / "i", 4)
    vectors = np.random.default_rng(0).standard_normal((100, 4))
    for row, vector in enumerate(vectors):
        index.add(vector[None], [row])
    parts = index._store.snapshot().parts
    assert len(parts) <= 8 and [part.count for part in parts] == sorted((p.count for p in parts), reverse=True)
    assert len(list((tmp_path / "i" / "segments").iterdir())) == len(parts)
    whole = Index(vectors)
    assert index.search(vectors, k=3).ids == whole.search(vectors, k=3).ids


def test_metadata_is_changed_field_by_field(index, tmp_path):
    loaded = Index.load(index.save(tmp_path / "i"))
    loaded.update_metadata("item-2", {"price": 7.5, "shop": None})
    assert Index.load(tmp_path / "i").metadata("item-2") == {"label": "even", "price": 7.5}
    assert list(loaded.rows("price > 7")) == [{"id": "item-2", "label": "even", "price": 7.5}]
    with pytest.raises(ValueError, match="'nobody' is not in the index"):
        loaded.update_metadata("nobody", {})


def test_indexes_are_merged(index):
    other = Index(np.eye(6)[:2], ["item-1", "more"], [{"label": "theirs"}, {}], "model-1")
    with pytest.raises(ValueError, match="'item-1', which occurs twice"):
        index.merge(other)
    assert len(index) == 20
    index.merge(other, replace=True)
    assert len(index) == 21 and index.metadata("item-1") == {"label": "theirs"} and "more" in index
    with pytest.raises(ValueError, match="another model"):
        index.merge(Index(np.eye(6), fingerprint="model-2"))


@pytest.mark.parametrize("arguments", [{}, {"ids": ["item-1"], "where": "n = 1"}])
def test_remove_takes_ids_or_a_filter(index, arguments):
    with pytest.raises(ValueError, match="either `ids` or `where`"):
        index.remove(**arguments)


def test_remove_of_an_unknown_id_removes_nothing(index):
    with pytest.raises(ValueError, match="'nobody' is not in the index"):
        index.remove(["item-1", "nobody"])
    assert len(index) == 20


def test_an_empty_index_says_so(tmp_path):
    index = Index.create(tmp_path / "i", 3)
    assert len(index) == 0 and index.embeddings.shape == (0, 3) and index.ids == []
    with pytest.raises(ValueError, match="is empty"):
        index.search(np.ones(3))
    with pytest.raises(ValueError, match="not empty"):
        Index.create(tmp_path / "i", 3)
    with pytest.raises(ValueError, match=r"`dimension`.*0"):
        Index.create(tmp_path / "j", 0)


def test_an_index_on_a_volume_that_cannot_be_written_to_can_be_searched(index, tmp_path, monkeypatch):
    place = index.save(tmp_path / "i")
    connected = store.connected

    def readonly(address):
        if "immutable" not in address:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return connected(address)

    monkeypatch.setattr(store, "connected", readonly)
    loaded = Index.load(place, verify=True)
    assert loaded.search(index.embeddings[:2], k=3).ids == index.search(index.embeddings[:2], k=3).ids
    with pytest.raises(OSError, match="cannot be written"):
        loaded.remove(["item-1"])


def test_a_small_index_needs_no_tree(index):
    assert index.tune(5) is None
    with pytest.raises(ValueError, match="larger than the gallery"):
        index.tune(21)


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


def test_an_index_that_was_opened_by_a_relative_path_stays_open_elsewhere(tmp_path, monkeypatch):
    """Before, it was searched and changed in the folder that the process had gone to."""
    monkeypatch.chdir(tmp_path)
    Index(np.eye(4)).save("shop ✓.index")
    with Index.load("shop ✓.index") as index, Index.create("new.index", 4) as new:
        (tmp_path / "away").mkdir()
        monkeypatch.chdir(tmp_path / "away")
        index.upsert(np.eye(4)[:1], ["a"])
        new.add(np.eye(4)[:2])
        index.compact()
        index.verify(progress=False)
        assert index.search(np.eye(4)[1:2], k=1).ids == [[1]] and new.search(np.eye(4)[1:2], k=1).ids == [[1]]
        assert len(Index.load(tmp_path / "shop ✓.index")) == 5 and len(Index.load(tmp_path / "new.index")) == 2
    assert not any((tmp_path / "away").iterdir())


def test_a_closed_index_says_so_and_nothing_of_damage(tmp_path):
    for index in (Index(np.eye(4)), Index.load(Index(np.eye(4)).save(tmp_path / "shop.index"))):
        index.close()
        index.close()
        for use, *given in ((index.search, np.eye(4), 1), (index.__len__,), (index.add, np.eye(4))):
            with pytest.raises(ValueError, match="This index is closed: open it again"):
                use(*given)

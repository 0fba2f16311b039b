"""Several indexes that answer as one, and how they are built."""

import contextlib
import dataclasses
import os
import signal
import sys

import numpy as np
import pytest

from tests.retrieval.test_decisions import classes_of
from tf_detreg import retrieval
from tf_detreg.index import Index, Shards, shard_building, sharding
from tf_detreg.retrieval import bulk_shards


def unit(count, dim=8, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def facts(at):
    return {"label": f"class {at // 4}", "price": at % 7}


@pytest.fixture
def one_and_shards():
    """An index, and its items in four shards of which one is empty."""
    vectors, ids = unit(200), [f"item-{at}" for at in range(200)]
    one = Index(vectors, ids, [facts(at) for at in range(200)], "model")
    parts = []
    for shard in range(3):
        rows = [at for at, id in enumerate(ids) if bulk_shards.shard_of(id, 3) == shard]
        parts.append(Index(vectors[rows], [ids[row] for row in rows], [facts(row) for row in rows], "model"))
    empty = Index(unit(1), ["gone"], fingerprint="model")
    empty.remove(["gone"])
    with Shards([*parts[:2], empty, parts[2]]) as shards:
        yield one, shards


@pytest.mark.parametrize("where", [None, "price < 3", {"label": ["class 1", "class 7"]}])
@pytest.mark.parametrize("k", [1, 8])
def test_shards_find_what_one_index_finds(one_and_shards, where, k):
    one, shards = one_and_shards
    queries = unit(30, seed=1)
    found, wanted = (some.search(queries, k, where=where, progress=False) for some in (shards, one))
    assert found.ids == wanted.ids and found.metadata == wanted.metadata
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    ids = [id for shard in shards.shards for id in shard.ids]
    assert [[ids[at] for at in row] for row in found.positions] == found.ids
    assert found.engine == "exact" and found.neighbor_recall == 1.0 and found.notice is None
    assert len(shards) == len(one) and shards.search(queries[0], k, where=where).ids == found.ids[:1]


def test_a_search_deeper_than_a_shard(one_and_shards):
    one, shards = one_and_shards
    assert min(len(shard) for shard in shards.shards) == 0
    found, wanted = (some.search(unit(3, seed=2), 200) for some in (shards, one))
    assert [sorted(row) for row in found.ids] == [sorted(row) for row in wanted.ids]
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    with pytest.raises(ValueError, match="`k`=201 is larger than the gallery"):
        shards.search(unit(1), 201)
    with pytest.raises(ValueError, match="matches no item"):
        shards.search(unit(1), 1, where="price > 100")


def test_equal_scores_are_in_the_order_of_the_shards():
    same = np.tile([[0.6, 0.8]], (3, 1))
    with Shards([Index(same, ["a", "b", "c"]), Index(same, ["d", "e", "f"])]) as shards:
        assert shards.search([0.6, 0.8], 5).ids == [["a", "b", "c", "d", "e"]]


def test_what_is_stated_is_the_least_of_the_shards(one_and_shards):
    _, shards = one_and_shards
    parts = [shard.search(unit(2, seed=3), 3) for shard in shards.shards if len(shard)]
    told = [
        dataclasses.replace(part, engine=engine, neighbor_recall=recall, notice=notice)
        for part, engine, recall, notice in zip(
            parts, ["scann", "exact", "scann"], [0.991, 1.0, 0.994], [None, "why", "why"], strict=True
        )
    ]
    found = sharding.merged(told, [0, 70, 140], 3)
    assert (found.engine, found.neighbor_recall, found.notice) == ("exact, scann", 0.991, "why")


@pytest.mark.parametrize("score", ["nearest", "mean"])
def test_a_decision_judges_what_was_merged(one_and_shards, score):
    one, shards = one_and_shards
    decision = retrieval.calibrate(*classes_of(20), target=0.05, resamples=10, score=score)
    found, wanted = (some.search(unit(20, seed=4), 3, decision=decision) for some in (shards, one))
    np.testing.assert_array_equal(found.accepted, wanted.accepted)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)


@pytest.mark.parametrize("score", ["nearest", "margin", "mean"])
def test_decisions_of_the_shards_are_not_used(one_and_shards, score):
    """Without one, and with another one than they keep, which asks for labels that are not there."""
    _, shards = one_and_shards
    given = retrieval.calibrate(*classes_of(20), target=0.05, resamples=10, score=score, fingerprint="model")
    query, wanted = unit(3, seed=4), shards.search(unit(3, seed=4), 3, decision=given)
    for index in shards.indexes:
        for id in index:
            index.update_metadata(id, {"label": None if score != "margin" else index.metadata(id)["label"]})
    shards.decision = dataclasses.replace(given, score="density" if score == "margin" else "margin")
    found = shards.search(query, 3)
    assert found.accepted is None and found.ids == wanted.ids
    np.testing.assert_array_equal(shards.search(query, 3, decision=given).accepted, wanted.accepted)
    with pytest.raises(ValueError, match="`decision` was fitted on another model"):
        shards.search(query, 3, decision=dataclasses.replace(given, fingerprint="another"))


def test_what_does_not_fit_is_refused(one_and_shards):
    one, shards = one_and_shards
    with pytest.raises(ValueError, match="`shards` must be indexes"):
        Shards([])
    with pytest.raises(ValueError, match="`shards` must have one dimension; received 8, and 4 at 1"):
        Shards([one, Index(np.eye(4))])
    with pytest.raises(ValueError, match="`shards` must be of one model"):
        Shards([one, Index(unit(3), fingerprint="another")])
    with pytest.raises(ValueError, match="another model"):
        shards.search(unit(1), 1, fingerprint="another")
    # Of an index whose model nobody knows, nothing is said.
    with Shards([one, Index(unit(3))]) as some:
        assert len(some) == len(one) + 3
    with pytest.raises(RuntimeError, match="shutdown"):
        some.search(unit(1), 1)


@pytest.fixture
def vectors(tmp_path):
    """Four shards as a bulk embedding writes them, of which one is empty."""
    pytest.importorskip("pyarrow")
    names = [f"shop/{at}.jpg" for at in range(90)]
    names = [name for name in names if bulk_shards.shard_of(name, 4) != 2]
    rows = unit(len(names), 6)
    folder = tmp_path / "vectors"
    folder.mkdir()
    for shard in range(4):
        inside = [at for at, name in enumerate(names) if bulk_shards.shard_of(name, 4) == shard]
        path = folder / bulk_shards.name_of("embeddings", shard, 4, "parquet")
        with bulk_shards.writing(path, "parquet", 6) as write:
            if inside:
                write([names[at] for at in inside], rows[inside])
    return folder, names, rows


def check(folder, names, rows):
    with Shards.load(folder) as shards:
        found = shards.search(rows, 1, fingerprint="model", where={"path": names})
        assert [row[0] for row in found.ids] == names and len(shards) == len(names)
        for shard in shards.shards:
            shard.verify()
            assert shard.fields == ("path",) and shard.fingerprint == "model"
            assert all(shards.shard_of(id) is shard for id in shard.ids)
        # A change of one shard is found by the next search.
        shards.shard_of("new").add([np.eye(6)[0]], ["new"])
        assert shards.search(np.eye(6)[0], 1).ids == [["new"]]
        shards.shard_of("new").remove(["new"])


def test_each_shard_of_a_bulk_embedding_becomes_an_index(vectors, tmp_path, monkeypatch):
    folder, names, rows = vectors
    made = shard_building.build(folder, tmp_path / "i", fingerprint="model", fields=["path"])
    assert [path.name for path in made] == [f"index-0000{shard}-of-00004" for shard in range(4)]
    check(tmp_path / "i", names, rows)
    # What is whole is kept, and what is missing is made.
    times = {path: path.stat().st_ino for path in made}
    made[1].rename(tmp_path / "away")
    with pytest.raises(ValueError, match="with 3 of 4"):
        Shards.load(tmp_path / "i")
    again = shard_building.build(folder, tmp_path / "i", fingerprint="model", fields=["path"])
    assert [path for path in again if path.stat().st_ino == times[path]] == [made[0], *made[2:]]
    check(tmp_path / "i", names, rows)
    with pytest.raises(ValueError, match="which has none"):
        Shards.load(tmp_path)


def test_an_index_that_is_there_of_other_vectors_is_not_kept(vectors, tmp_path):
    folder, *_ = vectors
    made = shard_building.build(folder, tmp_path / "i", fingerprint="model", k=None)
    for options, said in (
        ({"fingerprint": "other"}, "`fingerprint` must be of the model 'model', as is the index '.*-00000-of-00004'"),
        ({"fields": ["path"]}, r"`fields` must be among \[\], those of the index .*; received \['path'\]"),
    ):
        with pytest.raises(ValueError, match=said):
            shard_building.build(folder, tmp_path / "i", k=None, **options)
    Index.load(made[1]).compact()  # the same items
    assert shard_building.build(folder, tmp_path / "i", k=None) == made
    for shard, change in ((1, lambda some: some * 2 + 0.1), (3, lambda some: some[:-1])):
        path = folder / bulk_shards.name_of("embeddings", shard, 4, "parquet")
        ((ids, some),) = list(bulk_shards.parts(str(path), 99))
        kept = path.read_bytes()
        with bulk_shards.writing(path, "parquet", 6) as write:
            write(ids[: len(change(some))], change(some))
        said = f"`vectors` must hold the items of the index '.*{made[shard].name}'.*others in .*Remove that index"
        with pytest.raises(ValueError, match=said):
            shard_building.build(folder, tmp_path / "i", k=None)
        path.write_bytes(kept)


def test_beam_builds_the_shards(vectors, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    folder, names, rows = vectors
    shard_building.build(folder, tmp_path / "i", fingerprint="model", fields=["path"], options=[])
    check(tmp_path / "i", names, rows)


def test_without_beam_the_error_says_what_to_install(vectors, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    # Where Beam is installed, another test may have loaded what needs it.
    monkeypatch.delitem(sys.modules, "tf_detreg.retrieval.beam_stages", raising=False)
    monkeypatch.delattr("tf_detreg.retrieval.beam_stages", raising=False)
    with pytest.raises(ImportError, match=r"tf-detreg\[beam\]"):
        shard_building.build(vectors[0], tmp_path / "i", options=[])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_build_that_is_killed_goes_on(vectors, tmp_path):
    """Killed before each of its renames: a directory that has its name is whole."""
    folder, names, rows = vectors
    for kill_at in range(1, 12, 2):
        place = tmp_path / str(kill_at)
        process = os.fork()
        if not process:
            count = 0

            def add(self, *given, add=Index.add, kill_at=kill_at):
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                add(self, *given)
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            with contextlib.suppress(BaseException):
                Index.add = add
                shard_building.build(folder, place, fingerprint="model", fields=["path"])
            os._exit(0)
        os.waitpid(process, 0)
        shard_building.build(folder, place, fingerprint="model", fields=["path"])
        check(place, names, rows)
        assert not [path for path in place.iterdir() if not path.name.startswith("index-")]


def test_shards_are_described_together():
    with Shards([Index(unit(5)), Index(unit(2), fingerprint="one"), Index(unit(3))]) as shards:
        said = shards.describe()
    assert said["items"] == "10 of 8 dimensions, in 3 shards of 2 to 5"
    assert said["on disk"].endswith(" MB") and said["fields"] == "none" and said["search"].count(";") == 0
    parts = [Index(unit(1), metadata=[facts]) for facts in ({"a long name": 1, "x": 2}, {"b": "c", "x": 0.5})]
    for part, fields in zip(parts, (["x", "b"], ["x"]), strict=True):
        part.index_field(*fields)
    with Shards(parts) as shards:
        assert shards.describe()["fields"] == "a long name (integer), b (text), x (number, indexed)"

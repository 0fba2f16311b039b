"""From one index, or from embeddings in files, to several shards."""

import contextlib
import functools
import os
import signal
import sqlite3

import numpy as np
import pytest

from tests.index.test_sharding import facts, unit
from tests.retrieval.test_decisions import classes_of
from tf_detreg import retrieval
from tf_detreg.index import Index, Shards, segments, shard_building, sharding, splitting
from tf_detreg.index.store import Store
from tf_detreg.retrieval import bulk_shards


@pytest.fixture
def one(request):
    """An index with metadata, of which something was removed, and a decision. Ids are of both kinds unless for Parquet.

    Of ids of both kinds Parquet makes text.
    """
    kind = request.node.callspec.params.get("kind") if hasattr(request.node, "callspec") else None
    ids = [at if at % 3 or kind in ("parquet", "folder") else f"item-{at}" for at in range(200)]
    index = Index(unit(200), ids, [facts(at) for at in range(200)], "model")
    index.index_field("label")
    index.remove(ids[10:30])
    index.decision = retrieval.calibrate(*classes_of(20), target=0.05, resamples=10)
    return index


def sources(one, tmp_path, kind):
    if kind == "index":
        return one
    if kind == "directory":
        return one.save(tmp_path / "one")
    pytest.importorskip("pyarrow")
    if kind == "parquet":
        return one.to_parquet(tmp_path / "one.parquet", progress=False)
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, where in (("a", "price < 3"), ("b", "price >= 3")):
        one.to_parquet(folder / f"{name}.parquet", where=where, progress=False)
    return folder


@pytest.mark.parametrize("kind", ["index", "directory", "parquet", "folder"])
def test_shards_of_an_index_answer_as_it_does(one, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(splitting, "_ROWS", 50)
    made = splitting.split(sources(one, tmp_path, kind), tmp_path / "shards", 3, fields=["price"])
    assert [path.name for path in made] == [f"index-0000{shard}-of-00003" for shard in range(3)]
    with Shards.load(tmp_path / "shards") as shards:
        shards.verify(progress=False)
        known = {"price"} if kind in ("parquet", "folder") else {"price", "label"}  # Parquet knows no such fields
        assert len(shards) == len(one) == 180 and shards.fingerprint == "model" and shards.dimension == one.dimension
        assert sorted(map(str, shards.rows())) == sorted(map(str, one.rows()))
        assert shards.count("price < 3") == one.count("price < 3")
        if kind in ("index", "directory"):
            assert shards.decision == one.decision
        for index in shards.shards:
            assert len(index) and set(index.fields) == known and all(shards.shard_of(id) is index for id in index)
        found, wanted = (
            some.search(unit(20, seed=5), 8, progress=False, fingerprint="model") for some in (shards, one)
        )
        assert found.ids == wanted.ids and found.metadata == wanted.metadata


def test_what_cannot_be_split_is_told_and_nothing_is_left(one, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="`output` must be a new folder, or an empty one"):
        splitting.split(one, tmp_path / "full", 2)
    with pytest.raises(ValueError, match="`shards` must be a whole number from 1 to 256; received 0"):
        splitting.split(one, tmp_path / "out", 0)
    with pytest.raises(FileNotFoundError, match="`source`"):
        splitting.split(tmp_path / "nothing", tmp_path / "out", 2)
    with pytest.raises(ValueError, match="is not an index"):
        splitting.split(tmp_path / "full", tmp_path / "out", 2)
    monkeypatch.chdir(tmp_path / "full")
    with pytest.raises(ValueError, match=r"`output` must name a new folder; received '\.'"):
        splitting.split(one, ".", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"`output` must be a new folder.*is a link or a mount point"):
        splitting.split(one, tmp_path / "link", 2)
    for options, said in (
        ({"k": 0}, "`k` must be a whole number, 1 or more; received 0"),
        ({"fields": "price"}, r"`fields` must be a list of names; received 'price'. Give \['price'\]"),
        ({"fields": ['a"b']}, "`fields` must name fields by text"),
    ):
        with pytest.raises(ValueError, match=said):
            splitting.split(one, tmp_path / "out", 2, **options)
        with pytest.raises(ValueError, match=said):
            shard_building.build(tmp_path / "full", tmp_path / "out", **options)
    one.remove(where="price < 100")
    with pytest.raises(ValueError, match="`source` must hold at least one embedding"):
        splitting.split(one, tmp_path / "out", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "link"]


def test_a_split_that_fails_goes_on(one, tmp_path, monkeypatch):
    add, calls = Index.add, []

    def fails(self, *given):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the disk is full")
        add(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", fails)
        with pytest.raises(OSError, match="the disk is full"):
            splitting.split(one, tmp_path / "out", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out.part"]
    splitting.split(one, tmp_path / "out", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with Shards.load(tmp_path / "out") as shards:
        shards.verify(progress=False)
        assert sorted(map(str, shards.rows())) == sorted(map(str, one.rows()))


def dump(folder):
    """Return all that is in the tables of each shard, and the bytes of its vectors."""
    found = {}
    for place in sorted(folder.iterdir()):
        with contextlib.closing(sqlite3.connect(place / "items.sqlite")) as opened:
            found[place.name] = [
                list(opened.iterdump()),
                {file.name: file.read_bytes() for file in (place / "segments").iterdir()},
            ]
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_split_that_is_killed_goes_on_to_the_same_end(one, tmp_path, monkeypatch):
    """Killed before and after each of its changes: the tables and the vectors are those of an unbroken split."""
    monkeypatch.setattr("tf_detreg.index.segments.BLOCK", 64)
    monkeypatch.setattr(segments.live_blocks, "__defaults__", (0, 64))
    split = functools.partial(splitting.split, one.save(tmp_path / "one"), fields=["price"], shards=3, progress=False)
    split(tmp_path / "whole")
    wanted = dump(tmp_path / "whole")
    counts, changing = [], Store.changing

    def killed(place, kill_at):
        """Kill a split before its n-th change, and return whether it came so far."""
        process = os.fork()
        if process:
            return os.waitpid(process, 0)[1] == signal.SIGKILL
        count = 0

        @contextlib.contextmanager
        def counted(self):
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            with changing(self) as change:
                yield change

        with contextlib.suppress(BaseException):
            Store.changing = counted
            split(place)
        os._exit(0)

    kill_at, added = 1, Index.add
    while killed(tmp_path / str(kill_at), kill_at):
        place = tmp_path / str(kill_at)
        assert not place.exists() and (tmp_path / f"{kill_at}.part").exists()
        killed(place, 5)  # the call that goes on may be killed too
        left = []
        with monkeypatch.context() as patch:
            patch.setattr(
                Index, "add", lambda self, *given, left=left: (left.append(len(given[1])), added(self, *given))
            )
            if not place.exists():
                split(place)
        counts.append(sum(left))
        assert dump(place) == wanted
        assert not (tmp_path / f"{kill_at}.part").exists()
        kill_at += 1
    # The later it was killed, the less there is to add.
    assert kill_at > 15 and counts[0] > counts[len(counts) // 2] > counts[-1] == 0


def stopped(one, folder, monkeypatch, adds=4, **options):
    """Stop a split after some of its additions."""
    add, calls = Index.add, []

    def fails(self, *given):
        calls.append(1)
        if len(calls) > adds:
            raise KeyboardInterrupt
        add(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", fails)
        with pytest.raises(KeyboardInterrupt):
            splitting.split(one, folder, 3, progress=False, **options)


def test_a_split_goes_on_with_its_source_and_arguments_alone(one, tmp_path, monkeypatch):
    monkeypatch.setattr(segments.live_blocks, "__defaults__", (0, 64))
    folder = tmp_path / "out"
    stopped(one, folder, monkeypatch)
    before = dump(tmp_path / "out.part")
    first = next(iter(one))
    for change, said in (
        (lambda other: other.update_metadata(first, {"price": 99}), f"another item where it had {first!r}"),
        (lambda other: other.remove([first]), f"another item where it had {first!r}"),
        (lambda other: other.remove(list(other)[1:]), "items fewer"),
    ):
        other = Index(one.embeddings, one.ids, [one.metadata(id) for id in one], one.fingerprint)
        other.index_field("label")
        change(other)
        with pytest.raises(ValueError, match=rf"`source` must be .*out\.part' was made of; received one with .*{said}"):
            splitting.split(other, folder, 3, progress=False)
    turned = Index(one.embeddings[:, ::-1], one.ids, [one.metadata(id) for id in one], one.fingerprint)
    turned.index_field("label")
    with pytest.raises(ValueError, match="another vector of 'item-"):
        splitting.split(turned, folder, 3, progress=False)
    unnamed = Index(one.embeddings, one.ids, [one.metadata(id) for id in one])
    unnamed.index_field("label")
    for shards, source, options, said in (
        (4, one, {}, "`shards` must be 3, as in the split that was stopped in .*out.part'; received 4"),
        (3, one, {"fields": ["price"]}, r"`fields` must be \['label'\], .*received \['label', 'price'\]"),
        (3, unnamed, {}, "`fingerprint` must be 'model', .*received None"),
    ):
        with pytest.raises(ValueError, match=said):
            splitting.split(source, folder, shards, progress=False, **options)
    assert dump(tmp_path / "out.part") == before and not folder.exists()
    splitting.split(one, folder, 3, progress=False)
    assert dump(folder) == dump_of_unbroken(one, tmp_path)


def dump_of_unbroken(one, tmp_path):
    splitting.split(one, tmp_path / "unbroken", 3, progress=False)
    return dump(tmp_path / "unbroken")


def test_a_shard_that_was_damaged_meanwhile_begins_anew(one, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(segments.live_blocks, "__defaults__", (0, 64))
    stopped(one, tmp_path / "out", monkeypatch)
    place = tmp_path / "out.part" / "index-00001-of-00003"
    (file, *_) = (place / "segments").iterdir()
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    (tmp_path / "out.part" / "index-00002-of-00003" / "items.sqlite").write_bytes(b"no database")
    splitting.split(one, tmp_path / "out", 3, progress=False)
    assert [("begins anew" in text) for text in caplog.messages] == [True, True]
    assert dump(tmp_path / "out") == dump_of_unbroken(one, tmp_path)


def test_progress_counts_what_was_there_already(one, tmp_path, monkeypatch):
    monkeypatch.setattr(segments.live_blocks, "__defaults__", (0, 64))
    stopped(one, tmp_path / "out", monkeypatch)
    seen = {}

    @contextlib.contextmanager
    def ticker(title, total, show=None):
        seen[title] = [total, 0]

        def tick(steps):
            seen[title][1] += steps

        yield tick

    monkeypatch.setattr(splitting, "ticker", ticker)
    splitting.split(one, tmp_path / "out", 3)
    assert seen.pop("Writing shards") == [180, 180]
    splitting.split(sources(one, tmp_path, "parquet"), tmp_path / "again", 3)
    assert seen == {"Writing shards": [180, 180]}


def test_one_function_opens_an_index_or_its_shards(one, tmp_path):
    place = one.save(tmp_path / "one")
    splitting.split(place, tmp_path / "shards", 2)
    with sharding.load(place) as whole, sharding.load(tmp_path / "shards") as shards:
        assert isinstance(whole, Index) and isinstance(shards, Shards) and len(whole) == len(shards)
        said = shards.describe()
        assert said["items"].startswith("180 of 8 dimensions, in 2 shards of ") and said["search"] == "exact"
        assert "label (text, indexed)" in said["fields"] and said["model"] == whole.describe()["model"]
    with pytest.raises(ValueError, match=r"holds 2 shards of an index\. .*index-00000-of-00002"):
        Index.load(tmp_path / "shards")
    (tmp_path / "shards" / "index-00001-of-00002").rename(tmp_path / "away")
    with pytest.raises(ValueError, match="with 1 of 2"):
        sharding.load(tmp_path / "shards")


def test_damage_of_every_shard_is_told(one, tmp_path):
    for place in splitting.split(one, tmp_path / "shards", 3)[1:]:
        (file,) = (place / "segments").iterdir()
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    with Shards.load(tmp_path / "shards") as shards, pytest.raises(ValueError, match=r"-00001-of-.*-00002-of-00003"):
        shards.verify(progress=False)


def test_clients_of_other_machines_are_not_read(one):
    class Client:
        dimension, fingerprint = one.dimension, one.fingerprint

        def __len__(self):
            return 5

        def count(self, where=None):
            return 5

    shards = Shards([one, Client()])
    assert shards.count() == 185 and shards.decision == one.decision
    for ask in (lambda: list(shards.rows()), shards.verify, shards.describe):
        with pytest.raises(TypeError, match="indexes on this machine; received a Client at 1"):
            ask()
    assert Shards([Client()]).decision is None
    np.testing.assert_array_equal([len(shards)], [185])


def test_numbered_images_of_a_class_go_to_several_shards():
    for name in ("mug/{}.jpg", "PHOTOS/china 144,192/{}.jpg"):
        assert len({bulk_shards.shard_of(name.format(number), 4) for number in range(8)}) > 1
    counts = np.bincount([bulk_shards.shard_of(f"{one}/{two}.jpg", 4) for one in range(100) for two in range(4)])
    assert counts.min() > 70


def test_items_of_other_shards_are_found(one, tmp_path):
    splitting.split(one, tmp_path / "shards", 2, k=None)
    first, second = sorted((tmp_path / "shards").iterdir())
    with Shards.load(tmp_path / "shards") as shards:
        shards.verify(progress=False)
        stranger = next(iter(shards.shards[0]))
        shards.shards[1].add([np.ones(shards.dimension)], [stranger])
        with pytest.raises(ValueError, match=f"{second.name} holds 1 items of other shards, such as {stranger!r}"):
            shards.verify(progress=False)
        # The caller of `Shards` may place items as they like.
        Shards(shards.shards).verify(progress=False)
    first.rename(tmp_path / "away")
    with pytest.raises(ValueError, match=f"with 1 of 2: {first.name} is not there"):
        Shards.load(tmp_path / "shards")


def test_embeddings_of_one_model_are_not_called_another_s(one, tmp_path):
    with pytest.raises(
        ValueError, match="`fingerprint` must be of the model that made the source, 'model'; received 'ot"
    ):
        splitting.split(one, tmp_path / "shards", 2, fingerprint="other")
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    "columns, said",
    [
        ({"id": ["a"]}, "has the columns id; it needs"),
        ({"id": ["a"], "vector": [[1.0]]}, r"\(`vector` is list<.*double>\)"),
    ],
)
def test_tables_without_vectors_are_refused(columns, said, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=said):
        splitting.split(tmp_path / "bad.parquet", tmp_path / "shards", 2)


def test_items_are_added_replaced_and_removed_in_their_shards(one, tmp_path):
    folder = tmp_path / "shards"
    splitting.split(one, folder, 3, k=None)
    ids, facts = ["mug", "cup", 7, "item-0"], [{"price": price} for price in (1, 2, 3, 4)]
    with Shards.load(folder) as shards:
        assert "item-0" in shards and 199 in shards and "mug" not in shards and None not in shards
        assert shards.upsert(unit(4, seed=9), ids, facts, "model") == one.upsert(unit(4, seed=9), ids, facts) == 2
        shards.verify(progress=False)
        found, wanted = (some.search(unit(5, seed=3), 6, progress=False) for some in (shards, one))
        assert found.ids == wanted.ids and found.metadata == wanted.metadata
        count = len(shards)
        for wrong, said in (
            ({"ids": ["mug", "no such"]}, "`id`='no such' is not in the index"),
            ({"ids": ["mug"], "where": "price = 1"}, "give either `ids` or `where`"),
            ({"where": "price ="}, "`where` cannot be read"),
        ):
            with pytest.raises(ValueError, match=said):
                shards.remove(**wrong)
        for wrong, said in (
            ((unit(2), ["a", "a"]), "must all differ"),
            ((unit(2), ["a", "b"], [{}]), "one mapping for each"),
            ((unit(2)[:, :3], ["a", "b"]), "have 3 dimensions"),
            ((unit(2), ["a", "b"], None, "another"), "another model"),
        ):
            with pytest.raises(ValueError, match=said):
                shards.upsert(*wrong)
        with pytest.raises(ValueError, match="another model"):
            shards.refuse_other_model("another")
        # One shard alone went to another model: no other one is changed.
        last = shards.indexes[-1]
        last.refresh(unit(len(last), seed=2), last.ids, "another")
        with pytest.raises(ValueError, match="another model"):
            shards.upsert(unit(9), [f"new-{at}" for at in range(9)], fingerprint="model")
        last.refresh(unit(len(last), seed=2), last.ids, "model")
        assert len(shards) == count
        assert shards.remove(["mug", 7]) == 2 and shards.remove(where="price = 2") == one.remove(where="price = 2") > 0
        by_hand = Shards(shards.shards)
        assert "item-0" in by_hand
        for change in (lambda: by_hand.upsert(unit(1), ["a"]), lambda: by_hand.remove(where="price = 3")):
            with pytest.raises(ValueError, match=r"opened from their folder, Shards\.load"):
                change()


def test_vectors_of_another_dimension_are_not_called_a_model_s(one, tmp_path):
    with pytest.raises(ValueError, match="`dimension` must be that of the vectors, 8; received 5"):
        splitting.split(one, tmp_path / "shards", 2, dimension=5)
    assert not (tmp_path / "shards").exists()
    assert len(splitting.split(one, tmp_path / "shards", 2, dimension=8, k=None)) == 2

"""An index through a long life: random changes against a dictionary, kills, and readers beside a writer."""

import contextlib
import io
import itertools
import os
import pathlib
import shutil
import signal
import tempfile
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.retrieval.test_decisions import classes_of
from tf_detreg import retrieval
from tf_detreg.index import Index
from tf_detreg.index.connection import connected, wide_cache

IDS = st.one_of(st.integers(0, 12), st.sampled_from(["a", "b", "1", "\udcff", "é"]))
VECTOR = st.integers(0, 63).map(lambda seed: unit(np.random.default_rng(seed).standard_normal(4)))
DECISION = retrieval.calibrate(*classes_of(20), target=0.05, resamples=10)
FACTS = st.fixed_dictionaries({}, optional={"n": st.integers(0, 3), "label": st.sampled_from(["x", "y"])})
ITEMS = st.dictionaries(IDS, st.tuples(VECTOR, FACTS), min_size=1, max_size=6)


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Life(RuleBasedStateMachine):
    """The index on disk must hold what a dictionary holds, in the order in which its items were last added."""

    def __init__(self):
        super().__init__()
        self.room = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.room.name) / "i"
        self.index = Index.create(self.path, 4, "model")
        self.kept = {}

    def teardown(self):
        self.index.verify()
        self.index.close()
        self.room.cleanup()

    @rule(items=ITEMS)
    def add(self, items):
        ids, (vectors, facts) = list(items), zip(*items.values(), strict=True)
        if set(ids) & set(self.kept):
            with pytest.raises(ValueError, match="occurs twice"):
                self.index.add(np.stack(vectors), ids, facts)
        else:
            self.index.add(np.stack(vectors), ids, facts, "model")
            self.kept |= items

    @rule(items=ITEMS)
    def upsert(self, items):
        replaced = self.index.upsert(
            np.stack([v for v, _ in items.values()]), list(items), [f for _, f in items.values()]
        )
        assert replaced == len(set(items) & set(self.kept))
        for id in items:
            self.kept.pop(id, None)
        self.kept |= items

    @rule(ids=st.lists(IDS, unique=True, max_size=4))
    def remove(self, ids):
        if set(ids) <= set(self.kept):
            assert self.index.remove(ids) == len(ids)
            for id in ids:
                del self.kept[id]
        else:
            with pytest.raises(ValueError, match="is not in the index"):
                self.index.remove(ids)

    @rule(n=st.integers(0, 3))
    def remove_by_a_filter(self, n):
        gone = [id for id, (_, facts) in self.kept.items() if facts.get("n") == n]
        assert self.index.remove(where={"n": n}) == len(gone)
        for id in gone:
            del self.kept[id]

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), label=st.sampled_from(["x", "z", None]))
    def update(self, data, label):
        id = data.draw(st.sampled_from(sorted(self.kept, key=str)))
        self.index.update_metadata(id, {"label": label})
        vector, facts = self.kept[id]
        facts = {**facts, "label": label}
        self.kept[id] = vector, {key: value for key, value in facts.items() if value is not None}

    @rule()
    def compact(self):
        self.index.compact()

    @rule()
    def reopen(self):
        self.index.close()
        self.index = Index.load(self.path)

    @rule()
    def save_elsewhere_and_go_on_there(self):
        self.path = self.index.save(self.path.with_name("j" if self.path.name == "i" else "i"))
        self.index.close()
        self.index = Index.load(self.path)

    @invariant()
    def it_holds_what_the_dictionary_holds(self):
        assert len(self.index) == len(self.kept)
        assert list(self.index.rows()) == [{"id": id, **facts} for id, (_, facts) in self.kept.items()]
        if self.kept:
            np.testing.assert_array_equal(self.index.embeddings, np.stack([v for v, _ in self.kept.values()]))

    @precondition(lambda self: self.kept)
    @rule(query=VECTOR, filtered=st.booleans())
    def search(self, query, filtered):
        kept = [(id, v) for id, (v, facts) in self.kept.items() if not filtered or facts.get("label") == "x"]
        if not kept:
            return
        k = min(3, len(kept))
        scores = np.array([float(np.dot(v.astype(np.float64), query)) for _, v in kept])
        found = self.index.search(query, k=k, where={"label": "x"} if filtered else None)
        np.testing.assert_allclose(found.scores[0], np.sort(scores)[::-1][:k], atol=1e-6)
        assert [list(self.kept)[place] for place in found.positions[0]] == found.ids[0]
        for id, score in zip(found.ids[0], found.scores[0], strict=True):
            assert abs(scores[[known for known, _ in kept].index(id)] - score) < 1e-6


Life.TestCase.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
test_a_life = pytest.mark.filterwarnings("ignore")(Life.TestCase)


def start_writer(path: pathlib.Path, first: int) -> tuple[int, io.TextIOWrapper]:
    """A process that replaces all items again and again, and tells each step once it is kept."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, os.fdopen(reading)
    try:
        index = Index.load(path)
        for step in range(first, first + 100_000):
            index.upsert(np.eye(8), list(range(8)), [{"step": step}] * 8)
            if step % 7 == 0:
                index.compact()
            os.write(writing, f"{step}\n".encode())
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_loses_only_what_it_was_writing_and_readers_see_whole_states(tmp_path):
    path = Index(np.eye(8), list(range(8)), [{"step": 0}] * 8).save(tmp_path / "i")
    reader, seen, problems, done = Index.load(path), [], [], threading.Event()

    def read():
        while not done.is_set():
            try:
                found = reader.search(np.eye(8), k=1)
                steps = {row[0]["step"] for row in found.metadata}
                assert len(steps) == 1 and [row[0] for row in found.ids] == list(range(8))
                seen.append(steps.pop())
            except Exception as error:
                problems.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    committed = 0
    for attempt in range(2):
        writer, told = start_writer(path, committed + 1)
        with told:
            for _ in range(15 + 8 * attempt):
                committed = int(told.readline())
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            committed = max([committed, *map(int, told.read().split())])
        after = Index.load(path, verify=True)
        (step,) = {row["step"] for row in after.rows()}
        assert step in (committed, committed + 1), (
            "what was told is there; the last may have been kept before it was told"
        )
        committed = step
        after.close()
    done.set()
    thread.join()
    assert not problems, problems[:3]
    assert len(seen) > 3 and seen == sorted(seen)
    last = Index.load(path)
    last.upsert(np.eye(8)[:1], [0])
    files = {file.name for file in (path / "segments").iterdir()}
    assert files == {part.file for part in last._store.snapshot().parts}, "what the killed ones left is gone"


def held_by(path: pathlib.Path) -> tuple[dict, object]:
    """What an index on disk holds, checked: its rows and its decision."""
    with Index.load(path, verify=True) as index:
        return {row["id"]: (row, index.embeddings[at].tobytes()) for at, row in enumerate(index.rows())}, index.decision


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["I/O", "Ctrl-C"])
@pytest.mark.parametrize(
    "act",
    [
        lambda index: index.add(np.ones((1, 4)), ["x"]),
        lambda index: index.upsert(np.ones((2, 4)), [0, "y"]),
        lambda index: index.remove([3]),
        lambda index: index.compact(),
        lambda index: Index(np.eye(4)).save(index._store.directory),
        lambda index: setattr(index, "decision", DECISION),
    ],
    ids=["add", "upsert", "remove", "compact", "save over it", "decision"],
)
def test_a_fault_at_any_system_call_of_a_change_loses_nothing(tmp_path, monkeypatch, act, failure):
    """The change is tried with a fault at its first system call, its second, … until one goes through."""
    with Index.create(tmp_path / "before", 4) as index:
        for first in (0, 3, 5):
            index.add(np.random.default_rng(first).standard_normal((5 - first // 2, 4)))
        index.remove([1])
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    with Index.load(tmp_path / "after") as index:
        act(index)
    states = [held_by(tmp_path / name) for name in ("before", "after")]
    for at in itertools.count():
        path = shutil.copytree(tmp_path / "before", tmp_path / str(at))
        calls = itertools.count()

        def failing(original, calls=calls, at=at):
            def call(*args, **options):
                if next(calls) == at:
                    raise failure
                return original(*args, **options)

            return call

        with Index.load(path) as index, monkeypatch.context() as patched:
            index.ids  # noqa: B018  the files are open before the fault
            for name in ("fsync", "open", "close"):
                patched.setattr(os, name, failing(getattr(os, name)))
            for name in ("open", "replace", "unlink", "iterdir", "read_bytes"):
                patched.setattr(pathlib.Path, name, failing(getattr(pathlib.Path, name)))
            with contextlib.suppress(type(failure)):
                act(index)
            reached = next(calls) > at
        assert held_by(path) in states
        if not reached:
            break
    assert at >= 1 and held_by(path) == states[1]


def test_a_change_of_many_items_writes_its_pages_once(tmp_path):
    """With SQLite's two megabytes, a page was written and read again for every row of an index that lies elsewhere.

    Here the index is small, and so is the memory that SQLite has for its pages beside changes.
    """
    count = 4_000
    index = Index.create(tmp_path / "i", 2)
    index.index_field("mixed")
    turned = np.random.default_rng(0).permutation(count).tolist()
    index.add(np.tile([0.6, 0.8], (count, 1)), metadata=[{"mixed": f"{at:040}"} for at in turned])
    before = -100  # kilobytes
    index._store.query(f"PRAGMA cache_size = {before}")
    waiting = tmp_path / "i" / "items.sqlite-wal"
    index._store.query("PRAGMA wal_checkpoint(TRUNCATE)")
    with index._store.changing() as change:
        change.remove(range(0, count, 10))
        assert waiting.stat().st_size == 0
    assert index._store.query("PRAGMA cache_size")[0] == (before,)
    assert len(index) == index.count() == 3_600
    index.verify()


def test_what_is_counted_once_is_counted_again_after_a_change():
    index = Index(np.eye(6))
    index.remove([1, 4])
    assert len(index) == 4 and index.search(np.eye(6)[[0, 2, 5]], 1).positions.ravel().tolist() == [0, 1, 3]
    index.remove([0])
    assert len(index) == 3 and index.search(np.eye(6)[[2, 5]], 1).positions.ravel().tolist() == [0, 2]


def test_long_work_counts_every_item_once(tmp_path, counted):
    from tf_detreg.index import splitting

    Index(np.random.default_rng(0).normal(size=(40, 4))).save(tmp_path / "index")
    with Index.load(tmp_path / "index") as index:
        index.remove([3, 5, 8])
        index.verify()
        index.to_parquet(tmp_path / "items.parquet")
        index.to_parquet(tmp_path / "none.parquet", where={"label": "none"})
        splitting.split(index, tmp_path / "shards", 2)
        index.compact()
    # To verify is to read each item, and each vector.
    assert counted["Verifying"] == [(74, 74)]
    assert counted["Writing items"][:2] == [(37, 37), (0, 0)]
    assert counted["Writing shards"] == counted["Compacting"] == [(37, 37)]


def test_a_change_may_use_128_mib_and_gives_them_back():
    connection = connected("file::memory:")

    def size():
        return connection.execute("PRAGMA cache_size").fetchone()[0]

    before = size()
    with contextlib.suppress(KeyError), wide_cache(connection):
        assert size() == -128 * 1024  # SQLite counts KiB below zero, pages above
        raise KeyError
    assert size() == before

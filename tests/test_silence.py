"""What shows its progress, and under which titles; and that `progress=False` shows none at all."""

import ast
import json
import pathlib
import types

import keras
import numpy as np
import pytest

import tf_detreg
from tf_detreg import datasets, heads, progress, retrieval, training
from tf_detreg.analysis import lipschitz
from tf_detreg.export import verification
from tf_detreg.index import Index, Shards, splitting

ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
LABELS = np.repeat(np.arange(10), 4)


@pytest.fixture
def shown(monkeypatch):
    """The titles of all progress that is shown."""
    found, begin = [], progress._Lines.__init__

    def noted(self, title, *more):
        found.append(title)
        begin(self, title, *more)

    monkeypatch.setattr(progress._Lines, "__init__", noted)
    return found


@pytest.fixture
def images():
    pixels = np.random.default_rng(1).integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    return datasets.ImageSet(LABELS, [str(label) for label in range(10)], pixels, name="photos")


@pytest.fixture(scope="module")
def embedder():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), heads.Linear(6)], name="small")


def check(shown, call, *titles):
    call(progress=False)
    assert shown == []
    for asked in (None, True):
        call(progress=asked)
        assert list(dict.fromkeys(shown)) == list(titles)
        shown.clear()


def test_searches_and_evaluations(shown):
    check(shown, lambda **o: retrieval.search(ROWS, k=2, **o), "Searching")
    check(shown, lambda **o: retrieval.evaluate(ROWS, LABELS, **o), "Ranking queries")
    check(shown, lambda **o: retrieval.evaluate(ROWS, LABELS, engine="scann", **o), "Ranking queries")
    check(shown, lambda **o: retrieval.open_set(ROWS, LABELS, scores=["nearest"], **o), "Searching")


def test_what_has_no_such_argument_shows_nothing(shown):
    verification.recall_at_1(ROWS, LABELS)
    retrieval.verification(ROWS, LABELS)
    index = Index(ROWS)
    index.add(ROWS + 1)
    index.remove([3])
    index.decision = retrieval.calibrate(ROWS, LABELS, target=0.3)
    assert len(index) == 79 and shown == []


def test_an_index(shown, tmp_path):
    Index(ROWS, metadata=[{"n": n} for n in range(40)]).save(tmp_path / "a")
    with Index.load(tmp_path / "a") as index:
        check(shown, lambda **o: index.search(ROWS[:3], 2, **o), "Searching")
        check(shown, lambda **o: index.verify(**o), "Verifying")
        check(shown, lambda **o: index.to_parquet(tmp_path / "a.parquet", **o), "Writing items")
        check(shown, lambda **o: index.to_pgvector(tmp_path / "a.sql", **o), "Writing items")
        assert index.tune(2, False) is None
        for asked, titles in ((False, []), (None, ["Compacting"])):
            index.remove([len(index) - 1])
            index.compact(asked)
            assert shown == titles
        shown.clear()
    for asked, titles in ((False, []), (None, ["Writing shards"])):
        splitting.split(tmp_path / "a", tmp_path / f"shards {asked}", 2, k=2, progress=asked)
        assert shown == titles
    shown.clear()
    with Shards.load(tmp_path / "shards None") as shards:
        check(shown, lambda **o: shards.verify(**o), "Verifying")
        shards.search(ROWS[:3], 2, progress=False)
        assert shown == []


def test_images(shown, images, embedder, tmp_path):
    check(shown, lambda **o: training.embed(embedder, images, 16, **o), "Embedding")
    check(shown, lambda **o: training.embed(embedder, images, 16, title="Again", **o), "Again")
    for asked, titles in ((False, []), (None, ["Features of photos"])):
        datasets.cache_features(embedder, images, tmp_path / str(asked), progress=asked)
        assert shown == titles


def test_a_report_on_stretching(shown, images, embedder):
    lipschitz.measure(embedder, images, samples=4, progress=False)
    assert shown == []


def test_exported_files(shown, images, embedder, tmp_path, monkeypatch):
    (tmp_path / "a.tflite").write_bytes(b"")
    wanted = np.asarray(embedder(images.pixels))
    monkeypatch.setattr(verification, "run_artifact", lambda *_, **__: (wanted, {"latency": {}}))
    kept = []
    monkeypatch.setattr(verification, "_compare", lambda *arguments: kept.append(arguments) or types.SimpleNamespace())
    check(shown, lambda **o: verification.verify(embedder, tmp_path / "a.tflite", images, **o), "Checking the files")
    assert [arguments[3] for arguments in kept] == [0.0] * 3 and json.dumps(kept[0][4]) == '{"latency": {}}'


# Parts of work whose progress is that of the whole.
PARTS = {"task.exactly", "exactly"}


def test_whoever_takes_progress_passes_it_on():
    """Where a name can mean nothing else: not where another function of that name takes none."""
    trees = [ast.parse(path.read_text("utf-8")) for path in pathlib.Path(tf_detreg.__file__).parent.rglob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    taking = [one for one in functions if "progress" in {arg.arg for arg in [*one.args.args, *one.args.kwonlyargs]}]
    others = {one.name for one in functions if one not in taking}
    names, silent, seen = {"ticker", *(one.name for one in taking)} - (others - {"ticker"}), [], 0
    for function in taking:
        for node in ast.walk(function):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.rpartition(".")[2] in names and called not in PARTS:
                seen += 1
                if "progress" not in ast.unparse(node):
                    silent.append(f"{function.name}: {ast.unparse(node)}")
    assert not silent and seen > 30

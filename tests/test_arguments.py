"""What the functions behind the commands pass on, and how files are written and read; no model is trained."""

import contextlib
import ctypes
import errno
import importlib
import logging
import os
import types

import keras
import numpy as np
import pytest
from PIL import Image

from tf_detreg import calibrating, datasets, exchange, files, image_files, indexing, item_table, models, retrieval
from tf_detreg.cli import trouble
from tf_detreg.index import Index


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_system_that_cannot_swap_is_no_error(code, monkeypatch):
    monkeypatch.setattr(exchange, "_system_call", lambda: lambda first, second: ctypes.set_errno(code) or -1)
    assert exchange.exchange("a", "b") is False


def test_a_swap_that_fails_names_both_paths(monkeypatch):
    monkeypatch.setattr(exchange, "_system_call", lambda: lambda first, second: ctypes.set_errno(errno.EACCES) or -1)
    with pytest.raises(PermissionError) as refused:
        exchange.exchange("a", "b")
    assert (refused.value.filename, refused.value.filename2) == ("a", "b")
    monkeypatch.setattr(exchange, "_system_call", lambda: None)
    assert exchange.exchange("a", "b") is False


@pytest.mark.parametrize("durable", [True, False])
def test_content_is_on_the_disk_before_it_gets_its_name(durable, monkeypatch, tmp_path):
    done = []
    put = files._put
    monkeypatch.setattr(files, "sync", lambda path: done.append(f"sync {path.read_text()}"))
    monkeypatch.setattr(files, "sync_entry", lambda path: done.append(f"entry of {path.name}"))
    monkeypatch.setattr(files, "_put", lambda new, path: done.append("put") or put(new, path))
    with files.replacing(tmp_path / "x.txt", durable=durable) as temporary:
        temporary.write_text("text")
    assert done == (["sync text", "put", f"entry of {tmp_path.name}"] if durable else ["put"])


def test_all_in_a_folder_is_put_on_the_disk(monkeypatch, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).write_text("text")
    synced, real = [], os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda number: synced.append(os.fstat(number).st_ino) or real(number))
    files.sync(tmp_path)
    assert sorted(synced) == sorted(path.stat().st_ino for path in [tmp_path, *tmp_path.rglob("*")])
    synced.clear()
    files.sync(tmp_path / "x")
    assert synced == [(tmp_path / "x").stat().st_ino]


def test_a_reader_gets_what_was_wrong_with_a_folder_that_stayed(tmp_path):
    tried = []

    def read(folder):
        tried.append(folder)
        raise KeyError("wrong")

    with pytest.raises(KeyError, match="wrong"):
        files.read_folder(tmp_path, read)
    assert len(tried) == 1


def test_a_reader_tries_again_where_the_folder_was_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    (tmp_path / "x").mkdir()
    tried = []

    def read(folder):
        tried.append(folder)
        if len(tried) < 3:
            folder.rename(tmp_path / f"old {len(tried)}")
            (tmp_path / "x").mkdir()
        if len(tried) == 1:
            raise KeyError("half of it")
        return len(tried)

    assert files.read_folder(tmp_path / "x", read) == 3
    monkeypatch.setattr(files, "_ATTEMPTS", 4)

    def replace(folder):
        folder.rename(tmp_path / f"other {len(list(tmp_path.iterdir()))}")
        (tmp_path / "x").mkdir()

    with pytest.raises(OSError, match="replaced without a pause") as busy:
        files.read_folder(tmp_path / "x", replace)
    assert busy.value.errno == errno.EBUSY


def test_json_is_written_as_it_is_read(tmp_path):
    path = files.write_json(tmp_path / "x.json", {"name": "Käfer", "where": tmp_path})
    assert path == tmp_path / "x.json"
    assert path.read_text("utf-8") == '{\n  "name": "Käfer",\n  "where": "' + str(tmp_path) + '"\n}\n'
    assert files.read_json(path)["name"] == "Käfer"
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"it holds \[1\] in place of an object"):
        files.read_json(path)


EMBEDDER = types.SimpleNamespace(input_shape=(None, 6, 4, 3), layers=())


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 6), (shade, 0, 0)).save(path)
    return str(path)


def test_pictures_of_folders_are_found_once_each_and_hidden_ones_are_not(tmp_path):
    known = [picture(tmp_path / name) for name in ("b/2.png", "b/a/1.png", "a.png")]
    for name in ("b/.hidden.png", "b/.trash/3.png"):
        picture(tmp_path / name)
    (tmp_path / "b" / "note.txt").write_text("no picture")
    (tmp_path / "b" / "broken.png").write_text("no picture either")
    found = image_files.image_files([tmp_path / "a.png", tmp_path / "b", known[0]], EMBEDDER)
    assert list(found.files) == [known[2], known[0], known[1]]
    assert found.image_size == (6, 4) and found.name == "the files"
    assert {os.path.basename(path) for path, _ in found.skipped} == {"note.txt", "broken.png"}
    # A file that is named itself is taken, whatever it is called.
    assert list(image_files.image_files([tmp_path / "b" / "note.txt"], EMBEDDER).files) == [
        str(tmp_path / "b/note.txt")
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"No image in .*empty: known endings are .*\.jpg"):
        image_files.image_files([tmp_path / "empty"], EMBEDDER)
    with pytest.raises(FileNotFoundError, match="`paths`: there is no"):
        image_files.image_files([tmp_path / "none"], EMBEDDER)
    in_memory = datasets.ImageSet([0], ["a"], np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="which is held in memory"):
        image_files.paths_of(in_memory)


def test_the_values_of_a_column_are_of_one_type():
    assert item_table._typed(["1", "", "-20"]) == [1, None, -20]
    assert item_table._typed(["1", "2.5", "", "1e3"]) == [1.0, 2.5, None, 1000.0]
    assert item_table._typed(["true", "FALSE", ""]) == [True, False, None]
    assert item_table._typed(["007", "1"]) == ["007", "1"] and item_table._typed(["1", "a"]) == ["1", "a"]
    assert item_table._typed(["9" * 18, "1"]) == [int("9" * 18), 1] and item_table._typed(["9" * 19]) == [
        float("9" * 19)
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"path,id\na.jpg,1\nb.jpg,1\n", "row 2: the id '1' is there twice"),
        (b"path,id\na.jpg,1\n ,2\n", "row 2: the path is empty"),
        (b"path,id\na.jpg, \n", "row 1: the id is empty"),
        (b"path,id\na.jpg\n", "line 2: the number of columns is wrong"),
        (b"path,id\na.jpg,1,2\n", "line 2: the number of columns is wrong"),
        (b"file,id\na.jpg,1\n", "needs a column 'path'"),
        (b"path,id\n", "lists no images"),
        (b"path,id\n\xff.jpg,1\n", r"is not UTF-8 \(byte 0xff\)"),
        (b"path,id\n" + b"a" * 140_000 + b",1\n", "field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_where(content, told, tmp_path):
    (tmp_path / "shop.csv").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        item_table.read_items(tmp_path / "shop.csv")


def test_a_model_is_loaded_without_code_and_unchanged(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(keras.models, "load_model", lambda path, **options: asked.append((path, options)) or "model")
    monkeypatch.setattr(models.archives, "fault", lambda path, entries: None)
    (tmp_path / "embedder.keras").write_bytes(b"")
    options = {"compile": False, "safe_mode": True}
    assert models.load(tmp_path) == models.load(tmp_path / "embedder.keras") == "model"
    assert asked == [(tmp_path / "embedder.keras", options)] * 2
    monkeypatch.setattr(models.archives, "fault", lambda path, entries: f"it lacks {entries[0]}")
    with pytest.raises(ValueError, match=r"is damaged \(it lacks config\.json\)"):
        models.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Give a \.keras file"):
        models.load(tmp_path / "other.keras")


class _Decision:
    """A decision that notes where it is kept."""

    score, notes = "nearest", ("known",)

    def save(self, path):
        self.path = path


@pytest.fixture
def calibrated(monkeypatch, tmp_path):
    """Calibrate a run whose images are embedded as they are counted; return it and what was asked."""
    asked = []
    monkeypatch.setattr(
        calibrating.training,
        "embed",
        lambda embedder, images, **options: types.SimpleNamespace(
            embeddings=images.images[:, 0, 0, 0].tolist(), labels=images.labels
        ),
    )
    monkeypatch.setattr(retrieval, "fingerprint", lambda embedder: f"of {embedder}")
    monkeypatch.setattr(calibrating, "checked_target", lambda target, count: asked.append((target, count)))

    def images(names, first):
        count = 2 * len(names)
        pixels = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
        return datasets.ImageSet(np.repeat(np.arange(len(names)), 2), list(names), pixels)

    def call(train, validation, test, **options):
        decision = _Decision()
        replaced = lambda one, notes: setattr(one, "notes", notes) or one  # noqa: E731
        monkeypatch.setattr(calibrating.dataclasses, "replace", replaced)
        monkeypatch.setattr(
            retrieval, "calibrate", lambda *given, **options: asked.append((given, options)) or decision
        )
        splits = datasets.Splits(images(train, 0), images(validation, 50), images(test, 100))
        config = types.SimpleNamespace(seed=9)
        run = types.SimpleNamespace(splits=lambda: splits, embedder="net", config=config, directory=tmp_path)
        assert calibrating.calibrate_run(run, 0.2, **options) is decision
        return decision, *asked[-2:]

    return call


def test_a_run_is_calibrated_on_classes_that_it_was_not_trained_on(calibrated, tmp_path):
    decision, checked, ((embeddings, labels), options) = calibrated("ab", "bc", "ad", score="mean", bound="point")
    assert checked == (0.2, 2) and (embeddings, labels) == ([52, 53], ["c", "c"])
    test = options.pop("test")
    assert (test[0], np.asarray(test[1]).tolist()) == ([102, 103], [1, 1])
    assert options == {"target": 0.2, "fingerprint": "of net", "seed": 9, "score": "mean", "bound": "point"}
    assert decision.path == tmp_path / "decision.json" and decision.notes == ("known",)


def test_a_run_that_was_trained_on_all_classes_is_calibrated_with_a_note(calibrated):
    decision, checked, ((_, labels), options) = calibrated("ab", "ab", "")
    assert checked == (0.2, 4) and labels == ["a", "a", "b", "b"] and options["test"] is None
    assert decision.notes == ("known", calibrating.TRAINED_ON)


@pytest.mark.parametrize("flow", [True, False])
def test_open_set_measures_density_where_there_is_one(flow, monkeypatch):
    asked = []
    density = types.SimpleNamespace(of=lambda embedder, images: f"density of {images}")
    monkeypatch.setattr(retrieval, "FlowDensity", density)
    monkeypatch.setattr(retrieval, "open_set", lambda *given, **options: asked.append((given, options)))
    layers = [types.SimpleNamespace(), types.SimpleNamespace(**({"bijector": 1} if flow else {}))]
    run = types.SimpleNamespace(embedder=types.SimpleNamespace(layers=layers), config=types.SimpleNamespace(seed=4))
    calibrating.open_set_run(run, "images", types.SimpleNamespace(embeddings="rows", labels="labels"), draws=2)
    wanted = {"density": "density of images" if flow else None, "seed": 4, "draws": 2}
    assert asked == [(("rows", "labels"), wanted)]


def test_an_index_is_watched_by_the_scores_of_its_model(monkeypatch):
    asked = []
    decision = types.SimpleNamespace(score="nearest")
    found = types.SimpleNamespace(scores=np.array([[0.5, 0.4], [0.75, 0.1]]))
    index = types.SimpleNamespace(search=lambda *given, **options: asked.append((given, options)) or found)
    run = types.SimpleNamespace(embedder="net", directory="run")
    opened = lambda place, directory: asked.append((place, directory)) or (index, run, decision)  # noqa: E731
    monkeypatch.setattr(indexing, "open_catalog", opened)
    monkeypatch.setattr("tf_detreg.searching.image_files", lambda queries, embedder: (queries, embedder))
    embed = lambda embedder, images, **options: types.SimpleNamespace(embeddings=(embedder, images))  # noqa: E731
    monkeypatch.setattr(calibrating.training, "embed", embed)
    monkeypatch.setattr(retrieval, "fingerprint", lambda embedder: f"of {embedder}")
    monkeypatch.setattr(retrieval, "monitor", lambda *given: given)
    of, scores = calibrating.monitor_index("shop", ["a.jpg"], "other")
    assert of is decision and scores.tolist() == [0.5, 0.75]
    assert asked[0] == ("shop", "other")
    assert asked[1] == ((("net", (["a.jpg"], "net")), 1), {"fingerprint": "of net"})
    decision.score = "margin"
    with pytest.raises(ValueError, match="only `nearest` can be watched"):
        calibrating.monitor_index("shop", ["a.jpg"])
    decision = None
    with pytest.raises(ValueError, match="has a decision"):
        calibrating.monitor_index("shop", ["a.jpg"])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A run whose model puts an image where its mean color lies."""
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.UnitNormalization()]
    embedder = keras.Sequential([keras.Input((6, 4, 3)), *layers])
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    loaded = types.SimpleNamespace(embedder=embedder, directory=directory)
    monkeypatch.setattr("tf_detreg.training.load_run", lambda place: loaded)
    return loaded


def shades(tmp_path, *names):
    for number, name in enumerate(names):
        pixels = np.full((6, 4, 3), 40, np.uint8)
        pixels[..., number % 3] = 100 + 20 * number
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)


def test_an_index_keeps_the_decision_of_its_run_and_is_tuned(run, tmp_path, monkeypatch):
    shades(tmp_path, "p/a.png", "p/b.png", "p/c.png")
    kept, tuned = types.SimpleNamespace(), []
    monkeypatch.setattr(indexing, "decision_of", lambda directory: kept if directory == run.directory else None)
    monkeypatch.setattr(Index, "decision", None, raising=False)
    monkeypatch.setattr(Index, "tune", lambda self, k: tuned.append(k))
    made = indexing.index_files(run.directory, [tmp_path / "p"])
    assert made.decision is kept and tuned == [3] and len(made) == 3
    assert made.fingerprint == retrieval.fingerprint(run.embedder)
    assert all(item["run"] == str(run.directory.resolve()) for item in made.rows())


def test_files_of_one_id_are_refused_and_a_table_says_more(run, tmp_path, caplog):
    shades(tmp_path, "p/a.png", "p/b.png")
    (tmp_path / "shop.csv").write_text("path,id,price\np/a.png,m1,3\np/none.png,m2,4\n")
    with caplog.at_level(logging.WARNING):
        listed = indexing.list_files(run, [tmp_path / "p"], tmp_path / "shop.csv")
    assert listed.ids == ["m1", str(tmp_path / "p" / "b.png")]
    assert listed.metadata[0]["price"] == 3 and "price" not in listed.metadata[1]
    assert "1 of 2 files are not there" in caplog.text
    (tmp_path / "shop.csv").write_text(f"path,id\np/a.png,{tmp_path / 'p' / 'b.png'}\n")
    with pytest.raises(ValueError, match="2 files have the id"):
        indexing.list_files(run, [tmp_path / "p"], tmp_path / "shop.csv")
    with pytest.raises(ValueError, match="Give image files, folders of them, or a table"):
        indexing.list_files(run, [])
    (tmp_path / "shop.csv").write_text("path,id\np/none.png,m2\n")
    with pytest.raises(ValueError, match="not one of its 1 files is there"):
        indexing.list_files(run, [], tmp_path / "shop.csv")


def test_files_are_added_once_unless_they_are_to_be_replaced(run, tmp_path, monkeypatch):
    shades(tmp_path, "p/a.png", "p/b.png", "p/c.png")
    (tmp_path / "p" / "broken.png").write_text("no picture")
    indexing.index_files(run.directory, [tmp_path / "p" / "a.png"]).save(tmp_path / "shop")
    monkeypatch.setattr(indexing, "_PART", 1)
    parts, upsert = [], Index.upsert
    monkeypatch.setattr(
        Index, "upsert", lambda self, vectors, *given: parts.append(len(vectors)) or upsert(self, vectors, *given)
    )
    assert indexing.add_files(tmp_path / "shop", [tmp_path / "p"]) == indexing.Added(2, 0, 1, 1)
    assert indexing.add_files(tmp_path / "shop", [tmp_path / "p"]) == indexing.Added(0, 0, 3, 1)
    assert indexing.add_files(tmp_path / "shop", [tmp_path / "p"], replace=True) == indexing.Added(0, 3, 0, 1)
    assert sum(parts) == 5


def test_an_index_is_refreshed_within_its_limit(run, tmp_path, monkeypatch):
    shades(tmp_path, "p/a.png", "p/b.png", "p/c.png")
    indexing.index_files(run.directory, [tmp_path / "p"]).save(tmp_path / "shop")
    assert indexing.refresh_index(tmp_path / "shop", run.directory) is None
    monkeypatch.setattr(retrieval, "same_model", lambda one, other: False)
    asked, kept = [], types.SimpleNamespace()
    monkeypatch.setattr(indexing, "decision_of", lambda directory: kept)
    monkeypatch.setattr(Index, "decision", None, raising=False)
    monkeypatch.setattr(Index, "refresh", lambda self, *given, **options: asked.append((given, options)) or "done")
    tuned = []
    monkeypatch.setattr(Index, "tune", lambda self, k: tuned.append((k, self.decision)))
    assert indexing.refresh_index(tmp_path / "shop", run.directory, 0.25) == "done"
    (((vectors, ids, mark), options),) = asked
    assert sorted(ids) == sorted(str(tmp_path / "p" / f"{name}.png") for name in "abc") and vectors.shape == (3, 3)
    assert mark == retrieval.fingerprint(run.embedder)
    assert options == {"limit": 0.25, "note": {"run": str(run.directory.resolve())}}
    assert tuned == [(3, kept)]
    monkeypatch.setattr(Index, "__len__", lambda self: 1_000)
    indexing.refresh_index(tmp_path / "shop", run.directory, 0.25)
    assert tuned[-1] == (100, kept)  # as many as the server can be asked for
    for name in "abc":
        (tmp_path / "p" / f"{name}.png").unlink()
    with pytest.raises(ValueError, match="there is nothing to embed again"):
        indexing.refresh_index(tmp_path / "shop", run.directory)


def test_the_log_is_shown_once_and_put_back_also_after_an_error(capsys):
    log = logging.getLogger("tf_detreg")
    before = log.level, log.propagate, list(log.handlers)
    with contextlib.suppress(KeyError), trouble.show_log():
        assert log.level == logging.INFO and not log.propagate
        for text in ("one", "two", "one"):
            log.info(text)
        raise KeyError
    assert (log.level, log.propagate, list(log.handlers)) == before
    assert capsys.readouterr().err == "one\ntwo\n"


def test_progress_is_a_bar_in_a_terminal_alone(monkeypatch):
    cli_app, shown = importlib.import_module("tf_detreg.cli.app"), []  # the package gives the application of that name
    for is_terminal in (True, False):
        monkeypatch.setattr(cli_app.sys, "stdout", types.SimpleNamespace(isatty=lambda answer=is_terminal: answer))
        shown.append(cli_app.verbose())
    assert shown == [1, 2]

"""Every writer, with a fault at each of its system calls and killed at random: old or new is there, whole, always."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from tests.killed_writers import folder_of, number_of, write_folder
from tf_detreg import files, workspaces
from tf_detreg.datasets import ImageSet
from tf_detreg.datasets.glyphs import _read as read_glyphs
from tf_detreg.datasets.glyphs import _write as write_glyphs
from tf_detreg.export import publishing
from tf_detreg.index import Index

_SYSTEM = ("posix", "nt", "_io", "io", "fcntl")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Waiting for the disk thousands of times tells nothing here; the call stays one that can fail."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor))


class _Fault:
    """Raises at the n-th system call of a block: before it is made, or after it was made."""

    def __init__(self, at: int | None, error=None, event: str = "c_call"):
        self.at, self.error, self.event, self.count = at, error, event, 0

    def __call__(self, frame, event, function):
        if event != self.event:
            return
        module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
        if module not in _SYSTEM:
            return
        self.count += 1
        if self.count == self.at:
            sys.setprofile(None)
            raise self.error

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


def every_fault(write, read, both=True):
    """Calls `write(number)` with a fault at each of its system calls in turn; `read()` must find the old or the new.

    A fault is a Ctrl-C and an error of the disk, or, without `both`, one of them at every other call.

    Returns:
        How many faults were injected.
    """
    write(0)
    there, done = read(), 0
    assert there == 0
    for event in ("c_call", "c_return"):
        with _Fault(None, event=event) as counted:
            write(there := there + 1)
        assert counted.count > 5
        for at in range(1, counted.count + 1):
            errors = KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")
            for error in errors if both else errors[at % 2 :][:1]:
                with contextlib.suppress(KeyboardInterrupt, OSError), _Fault(at, error, event):
                    write(there + 1)
                found = read()
                assert found in (there, there + 1), (at, error, event)
                there, done = found, done + 1
    write(there + 1)
    assert read() == there + 1
    return done


def nothing_left(folder: pathlib.Path, names: set[str]):
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize("swaps", [True, False], ids=["exchange", "two renames"])
def test_a_folder_is_old_or_new_after_any_fault(tmp_path, monkeypatch, swaps):
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda first, second: False)
    target = tmp_path / "folder"

    assert every_fault(lambda number: write_folder(target, number), lambda: files.read_folder(target, number_of)) >= 200
    nothing_left(tmp_path, {"folder"})


def index_of(number: int) -> Index:
    """An index whose vectors and ids both say which version they are of."""
    count = 3 + number % 5
    angles = np.arange(count) + 100.0 * number
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Index(vectors, [f"{number} {row}" for row in range(count)], fingerprint=str(number))


def number_of_index(path: pathlib.Path) -> int:
    index = Index.load(path)
    number = int(index.fingerprint)
    again = index_of(number)
    assert index.ids == again.ids
    np.testing.assert_allclose(index.embeddings, again.embeddings, atol=1e-5)
    return number


def test_an_index_is_old_or_new_after_any_fault(tmp_path):
    target = tmp_path / "shop.index"
    assert every_fault(lambda number: index_of(number).save(target), lambda: number_of_index(target)) >= 200
    nothing_left(tmp_path, {"shop.index"})


def test_a_glyph_cache_is_old_or_new_after_any_fault(tmp_path):
    target = tmp_path / "glyphs.npz"

    def write(number):
        pixels = np.broadcast_to(np.full((1, 4, 4, 1), number % 250, np.uint8), (1, 4, 4, 3))
        write_glyphs(target, ImageSet([0], ["a"], images=pixels, groups=[0]))

    count = [0]

    def read():
        value = int(read_glyphs(target).images[0, 0, 0, 0])
        count[0] += (value - count[0]) % 250
        return count[0]

    assert every_fault(write, read) >= 200
    nothing_left(tmp_path, {"glyphs.npz"})


def test_embeddings_are_old_or_new_after_any_fault(tmp_path):
    target = tmp_path / "embeddings.npz"

    def write(number):
        with files.replacing(target) as temporary, open(temporary, "wb") as file:
            np.savez(file, embeddings=np.full((2, 2), number))

    def read():
        with np.load(target, allow_pickle=False) as file:
            return int(file["embeddings"][0, 0])

    assert every_fault(write, read) >= 200
    nothing_left(tmp_path, {"embeddings.npz"})


class _Variable:
    def __init__(self, value):
        self.value, self.shape = np.full((3,), value, np.float32), (3,)

    def numpy(self):
        return self.value

    def assign(self, value):
        self.value = value


def test_a_run_has_its_newest_or_the_last_checkpoint_after_any_fault(tmp_path):
    from tf_detreg.training import checkpoint

    def model_of(number):
        optimizer = types.SimpleNamespace(variables=[_Variable(-number)])
        return types.SimpleNamespace(variables=[_Variable(number)], metrics=[], optimizer=optimizer)

    def read():
        model = model_of(-1)
        notes = checkpoint.restore(model, checkpoint.checkpoints(tmp_path)[-1])
        assert model.variables[0].value[0] == notes["epoch"] == -model.optimizer.variables[0].value[0]
        return notes["epoch"]

    assert every_fault(lambda number: checkpoint.save(model_of(number), tmp_path, number, {}), read) >= 200
    assert all(path.suffix == ".npz" for path in tmp_path.iterdir())


def test_an_export_is_there_whole_or_not_at_all_after_any_fault(tmp_path):
    def newest():
        present = publishing.versions(tmp_path)
        for number in present[-2:]:
            number_of(tmp_path / str(number))
            assert publishing.check_version(tmp_path / str(number))
        assert present == list(range(1, len(present) + 1))
        return len(present) - 1

    def fill(path):
        folder_of(1)(path)
        (path / "saved_model.pb").write_text("graph")

    def write(number):
        publishing.publish(tmp_path, None, fill)

    assert every_fault(write, newest) >= 200
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())


class _Pictures:
    """Rows of a set in batches of two, of which one row cannot be read."""

    name, groups, class_names, count = "rows", None, ("a",), 5

    def __init__(self, rows):
        self.rows, self.labels = rows, np.zeros(self.count, np.int32)

    def __len__(self):
        return len(self.rows)

    def subset(self, rows):
        return _Pictures(rows)

    def indexed(self, batch_size):
        import tensorflow as tf

        readable = [(at, row) for at, row in enumerate(self.rows) if row != 3]
        for start in range(0, len(readable), batch_size):
            places, rows = zip(*readable[start : start + batch_size], strict=True)
            yield tf.constant(rows, tf.float32)[:, None], tf.constant(places)


def test_features_are_right_or_computed_again_after_any_fault(tmp_path, monkeypatch):
    """The one writer that fills its file in place: what its notes call done must be right, always."""
    import tensorflow as tf

    from tf_detreg.datasets import feature_cache

    def features(numbers):
        return tf.concat([numbers, 10 * numbers, -numbers], axis=1)

    monkeypatch.setattr(feature_cache, "_SECONDS_BETWEEN_NOTES", -1.0)
    monkeypatch.setattr(feature_cache, "_fingerprint", lambda backbone, data: "features")
    monkeypatch.setattr("tf_detreg.inference.traced", lambda backbone: backbone.compute)
    backbone = types.SimpleNamespace(name="net", output_shape=(None, 3), compute=features)
    folder, wanted = tmp_path / "cache", features(np.arange(5.0, dtype=np.float32)[:, None]).numpy()

    def compute():
        return feature_cache.cache_features(backbone, _Pictures(np.arange(5)), folder, 2, 0.5, progress=False)

    def stop(self, file, done, note=feature_cache._Store.note):
        note(self, file, done)
        if done > 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(feature_cache._Store, "note", stop)
        compute()
    half = folder.rename(tmp_path / "half")

    def begin():
        shutil.rmtree(folder, ignore_errors=True)
        if event == "c_return":
            shutil.copytree(half, folder)

    done = 0
    for event in ("c_call", "c_return"):  # before a call, from nothing on; after it, from the half on
        begin()
        with _Fault(None, event=event) as counted:
            compute()
        for at in range(1, counted.count + 1):
            for error in (KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")):
                begin()
                with contextlib.suppress(KeyboardInterrupt, OSError), _Fault(at, error, event):
                    compute()
                left = feature_cache._Store(folder / "features", 5, 3)
                if left.done:
                    kept = np.flatnonzero(left.written)
                    np.testing.assert_array_equal(left.open()[kept], wanted[kept])
                found = compute()
                assert found.rows.tolist() == [0, 1, 2, 4], (at, error, event)
                np.testing.assert_array_equal(found.features[found.rows], wanted[found.rows])
                done += 1
    assert done >= 200
    nothing_left(folder / "features", {"features.f32", "progress.json"})


def test_a_release_of_several_formats_is_there_whole_or_not_at_all_after_any_fault(tmp_path, monkeypatch):
    """The real `release` around writers of small files: one format is left out, as where it loses too much."""
    from tf_detreg.export import releasing

    number = [0]

    def saved_model(embedder, directory, version, **options):
        def fill(path):
            folder_of(number[0])(path)
            (path / "saved_model.pb").write_text("graph")

        return publishing.publish(directory, version, fill)

    def lite(embedder, stem, *options):
        path = stem.with_name(f"{stem.name}.tflite")
        with files.replacing(path) as temporary:
            temporary.write_text(f"{number[0]} {path.stem}")
        return path

    def verify(embedder, paths, *options, **named):
        checks = [_Check(path.name, passed="int8" not in path.name) for path in paths]
        return types.SimpleNamespace(checks=checks)

    for name, stub in {
        "DEFAULT": ("saved_model", "float32", "int8"),
        "WRITERS": {"float32": lite, "int8": lite},
        "saved_model": saved_model,
        "verify": verify,
        "inference_model": lambda embedder: embedder,
        "image_size_of": lambda embedder: (4, 4),
        "_spread": lambda images, size: images,
        "_named": lambda verification: verification,
        "model_card": lambda *options, **named: f"{number[0]} card",
    }.items():
        monkeypatch.setattr(releasing, name, stub)

    def write(count):
        number[0] = count
        releasing.release(None, tmp_path, np.zeros((2, 4, 4, 3)), progress=False)

    def newest():
        present = publishing.versions(tmp_path)
        assert present == list(range(present[0], present[-1] + 1))
        for version in present[-2:]:
            folder = tmp_path / str(version)
            assert publishing.check_version(folder)
            nothing_left(folder / "lite", {f"{tmp_path.name}-float32.tflite"})
            texts = [path.read_text() for path in (folder / "lite").iterdir()] + [(folder / "README.md").read_text()]
            assert {int(text.split()[0]) for text in texts} == {number_of(folder)}
        for version in present[:-5]:  # each release looks at all of them: hundreds would take most of the time
            shutil.rmtree(tmp_path / str(version))
        return present[-1] - 1

    # What a release is made of, `publish` and `replacing`, meets both at each call in the tests above.
    assert every_fault(write, newest, both=False) >= 200
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())


@dataclasses.dataclass
class _Check:
    name: str
    passed: bool


def test_a_decision_is_old_or_new_after_any_fault(tmp_path):
    """Of a run (`decision.json`), as a new calibration replaces it."""
    from tests.retrieval.test_decisions import classes_of
    from tf_detreg.retrieval import Decision, calibrate

    decision = calibrate(*classes_of(20), target=0.05, resamples=10)
    done = 0
    for target in (tmp_path / "decision.json", tmp_path / "new" / "decision.json"):

        def write(number, target=target):
            dataclasses.replace(decision, threshold=number / 10_000).save(target)

        done += every_fault(write, lambda target=target: round(10_000 * Decision.load(target).threshold))
        nothing_left(target.parent, {"decision.json"})
    assert done >= 200


# The package without its `__init__`, which loads TensorFlow.
ALONE = """
import os, runpy, sys, types
package = sys.modules["tf_detreg"] = types.ModuleType("tf_detreg")
package.__path__ = [os.path.dirname(sys.argv.pop(1))]
runpy.run_module("tests.killed_writers", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked writers")
@pytest.mark.parametrize("swaps", ["exchange", "renames"])
def test_killed_writers_lose_nothing_and_no_load_fails(tmp_path, swaps):
    """In a process without TensorFlow, which is quickly forked, as this one is not."""
    command = [sys.executable, "-c", ALONE, files.__file__, str(tmp_path / "folder"), swaps]
    done = subprocess.run(command, capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 25
    nothing_left(tmp_path, {"folder"})


def test_a_living_writers_workspace_stays_and_a_dead_ones_goes(tmp_path):
    """Also where the living one is another thread of this process."""
    hold = f"import sys; sys.path.insert(0, {os.getcwd()!r})\n"
    hold += "import importlib.util as u\n"
    hold += f"spec = u.spec_from_file_location('w', {workspaces.__file__!r}); w = u.module_from_spec(spec)\n"
    hold += "spec.loader.exec_module(w); import pathlib\n"
    hold += f"with w.workspace(pathlib.Path({str(tmp_path)!r}), 'other'): print('ready', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ready\n"
        inside, leave = threading.Event(), threading.Event()

        def stay():
            with files.workspace(tmp_path, "thread"):
                inside.set()
                leave.wait(30)

        thread = threading.Thread(target=stay)
        thread.start()
        assert inside.wait(30)
        files.write_text(tmp_path / "x.txt", "text")
        assert sorted(path.name.split(".")[1] for path in tmp_path.glob(".*")) == ["other", "thread"]
        leave.set()
        thread.join()
    finally:
        other.kill()
        other.wait()
    assert [path.name.split(".")[1] for path in tmp_path.glob(".*")] == ["other"]
    files.write_text(tmp_path / "x.txt", "text")
    nothing_left(tmp_path, {"x.txt"})


def test_what_is_not_ours_is_never_removed(tmp_path):
    for name in (".git", ".x.tf_detreg.txt", "x.tf_detreg"):
        (tmp_path / name).mkdir()
    (tmp_path / ".file.tf_detreg").write_text("a file")
    (tmp_path / ".link.tf_detreg").symlink_to(tmp_path / ".git")
    files.write_text(tmp_path / "x.txt", "text")
    nothing_left(tmp_path, {".git", ".x.tf_detreg.txt", "x.tf_detreg", ".file.tf_detreg", ".link.tf_detreg", "x.txt"})


def test_a_folder_that_a_killed_writer_moved_aside_is_read_again(tmp_path):
    folder_of(1)(tmp_path / "folder")
    aside = tmp_path / ".folder.12345678.tf_detreg" / "aside"
    aside.mkdir(parents=True)
    (tmp_path / "folder").rename(aside / "folder")
    assert files.read_folder(tmp_path / "folder", number_of) == 1
    nothing_left(tmp_path, {"folder"})


def test_a_new_folder_never_replaces_one(tmp_path):
    for taken in (folder_of(1), lambda path: path.mkdir(), lambda path: path.write_text("a file")):
        target, new = tmp_path / "taken", tmp_path / "new"
        taken(target)
        folder_of(2)(new)
        with pytest.raises(FileExistsError):
            files.move_new(new, target)
        assert number_of(new) == 2
        shutil.rmtree(new)
        shutil.rmtree(target, ignore_errors=True)

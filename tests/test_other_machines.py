"""What other machines lack, simulated here: ScaNN, locks, one-step swaps of folders, replacing open files, case."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import tf_detreg
from tf_detreg import files

ROOT = pathlib.Path(__file__).parents[1]

# As on Windows or macOS: no fcntl, no renameat2, no affinity of processes, folders that cannot be opened, no ScaNN.
ELSEWHERE = """
import os, sys
from tests.test_extras import Hiding

sys.meta_path[:] = [Hiding(finder, {"fcntl", "scann", "usearch", "threadpoolctl"}) for finder in sys.meta_path]
sys.modules.pop("fcntl", None)
for name in ("sched_getaffinity", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
import numpy as np
from tf_detreg import exchange
exchange._system_call = lambda: None
really_open = os.open

def no_folders(path, flags, *rest, **options):
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return really_open(path, flags, *rest, **options)

os.open = no_folders
import shutil
shutil._use_fd_functions = False  # shutil opens folders where they can be opened
import pathlib
import keras
import tf_detreg as dr
from tf_detreg import files, workspaces
from tf_detreg.training import claim
workspaces.fcntl = claim.fcntl = None  # loaded before it was hidden


class Windows:
    # `os` as `files` sees it there; what says that a name is taken has other numbers.
    name = "nt"
    def __getattr__(self, name):
        return getattr(os, name)

files.os, files._TAKEN_ON_WINDOWS = Windows(), files._TAKEN

folder = pathlib.Path(sys.argv[1])
for text in ("first", "second"):
    files.write_text(folder / "file.txt", text)
    with files.replacing(folder / "folder") as new:
        new.mkdir()
        (new / "part.txt").write_text(text)
assert (folder / "folder" / "part.txt").read_text() == (folder / "file.txt").read_text() == "second"
with claim.claimed(folder / "run"):
    (folder / "run" / "x").write_text("x")

points = np.random.default_rng(0).normal(size=(1200, 8)).astype(np.float32)
report = dr.retrieval.evaluate(points, np.arange(1200) // 4, k=1, metrics="recall", engine="scann")
assert report.engine == "exact" and "ScaNN cannot be loaded" in " ".join(report.notes)
index = dr.index.Index(points, ids=[f"{i}" for i in range(1200)])
for _ in range(2):
    index.save(folder / "index")
loaded = dr.index.Index.load(folder / "index")
loaded.add(points[:3], ids=["a", "b", "c"])
loaded.remove(["0"])
assert len(dr.index.Index.load(folder / "index")) == 1202
embedder = keras.Sequential([keras.Input((16, 16, 3)), dr.backbones.small_cnn(16, width=4), dr.heads.Linear(8)])
for _ in range(2):
    assert (dr.export.saved_model(embedder, folder / "models", warm_up=False) / "saved_model.pb").is_file()
left = [path for path in folder.rglob("*") if ".tf_detreg" in path.name]
assert not left, left
print("works elsewhere")
"""


def test_without_locks_swaps_and_scann_everything_is_written_and_read(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert "works elsewhere" in done.stdout, done.stderr[-3000:]
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert len({name.lower() for name in names}) == len(names)
    # What Windows refuses in names.
    assert not [name for name in names if set('<>:"|?*\\') & set(name)]


def test_no_two_files_of_the_repository_differ_in_case_alone():
    names = [
        path.relative_to(ROOT).as_posix()
        for folder in ("tf_detreg", "tests", "docs", "examples", "studies", "benchmarks", "tools")
        for path in (ROOT / folder).rglob("*")
        if "__pycache__" not in path.parts
    ]
    assert len(names) > 300
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_where_an_open_file_cannot_be_replaced_the_former_one_stays(tmp_path, monkeypatch, kind):
    target = tmp_path / "target"

    def write(text):
        with files.replacing(target) as new:
            if kind == "folder":
                new.mkdir()
            (new / "part" if kind == "folder" else new).write_text(text)

    write("former")

    def refused(source, destination, *_, **__):
        raise PermissionError(13, "The process cannot access the file", os.fspath(destination))

    monkeypatch.setattr("tf_detreg.exchange._system_call", lambda: None)
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, refused)
    with pytest.raises(OSError, match="cannot access"):
        write("new")
    monkeypatch.undo()
    assert (target / "part" if kind == "folder" else target).read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_processes_are_started_by_spawn_alone():
    """A fork copies TensorFlow's threads' locks without the threads; macOS and Windows start processes by spawn."""
    started = []
    for path in pathlib.Path(tf_detreg.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if owner == "os" and node.func.attr in ("fork", "forkpty"):
                    started.append(f"{path.name}:{node.lineno}")
                if owner == "multiprocessing" and node.func.attr in ("Pool", "Process", "Queue", "Manager"):
                    started.append(f"{path.name}:{node.lineno}")
                if node.func.attr == "get_context" and [ast.unparse(each) for each in node.args] != ["'spawn'"]:
                    started.append(f"{path.name}:{node.lineno}")
                pools = node.func.attr == "ProcessPoolExecutor"
                if pools and "mp_context" not in {word.arg for word in node.keywords}:
                    started.append(f"{path.name}:{node.lineno}")
    assert not started

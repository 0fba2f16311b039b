"""What importing the package costs and brings."""

import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import tf_detreg as dr
from tests import new_process
from tests.heads.table import ALL, FLOWS, features, make
from tests.losses.table import DIM, ONE_A_CLASS, AllTriplets
from tf_detreg import heads
from tf_detreg.training import MetricModel

HEAVY = {"tensorflow_probability", "tf_keras", "scann", "matplotlib", "sklearn", "PIL", "rich", "typer", "torch"}


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options)


def write_embedder(folder):
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    embedder = keras.Sequential(
        [keras.Input((16, 16, 3)), dr.backbones.small_cnn(16, width=4), dr.heads.RealNVP(8, depth=2, hidden=8)]
    )
    np.savez(folder / "embedder.npz", images=images, embeddings=embedder(images))
    embedder.save(folder / "embedder.keras")
    assert not [name for name in zipfile.ZipFile(folder / "embedder.keras").namelist() if name.endswith(".pkl")]


def write_heads(folder):
    folder.mkdir()
    x = features(dtype="float32").numpy()
    np.save(folder / "x.npy", x)
    built = {name: make(name, dtype="float32", **({"penalty": 0.05} if name in FLOWS else {})) for name in ALL}
    pair = make("real_nvp", dtype="float32", penalty=0.1), make("nice", dtype="float32", penalty=-0.1)
    for name, head in {**built, "dueling": heads.Dueling(*pair)}.items():
        model = keras.Sequential([keras.Input((x.shape[1],)), head])
        model.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", model(x))


def model_with(row) -> keras.Model:
    keras.utils.set_random_seed(1)
    loss = row.build("float32")
    if row.is_layer:
        return MetricModel(keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(6), heads.Linear(DIM)]), loss)
    model = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
    model.compile("sgd", loss=loss)
    return model


def write_losses(folder):
    folder.mkdir()
    for row in ONE_A_CLASS:
        assert not isinstance(row.options.get("miner"), AllTriplets)  # known to the tests alone
        (labels, x), model = row.batch(), model_with(row)
        loss = model.loss_function if row.is_layer else model.loss
        value = loss(labels, model(x), **({"training": False} if row.name == "memory" else {}))
        np.savez(folder / f"{row.name}.npz", labels=labels, x=x, value=value)
        model.save(folder / f"{row.name}.keras")


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict:
    """What a process says that begins with the package and reads files that were written here."""
    folder = tmp_path_factory.mktemp("files")
    write_embedder(folder)
    write_heads(folder / "heads")
    write_losses(folder / "losses")
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    done = run("-m", new_process.__name__, str(folder), env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}


def test_import_loads_nothing_heavy(said):
    """Keras itself, which comes before, loads some of it."""
    assert "tf_detreg" in said["brought"] and not HEAVY & set(said["brought"])


@pytest.mark.parametrize("part", [part.__name__ for part in new_process.PARTS])
def test_a_process_that_only_imports_us_can_do_it(said, part):
    assert said[part] == ""


def test_files_of_other_formats_are_not_tried_by_tensorflow(said):
    assert said["log"].count("reading\n") == 1
    assert "NOT_FOUND" not in said["log"].partition("reading\n")[2].partition("read\n")[0]


def test_tab_shows_the_api_and_nothing_else(said):
    assert said["tab"] == said["api"]


def test_another_backend_is_refused_in_words():
    """Asked before anything else is loaded, so that a Keras that only says so will do."""
    keras = "types.SimpleNamespace(backend=types.SimpleNamespace(backend=lambda: 'jax'))"
    done = run("-c", f"import sys, types; sys.modules['keras'] = {keras}; import tf_detreg")
    assert done.returncode != 0 and "KERAS_BACKEND=tensorflow" in done.stderr


def test_load_says_what_it_wants(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\.keras file"):
        dr.load(tmp_path / "nothing.keras")


@pytest.mark.parametrize(
    ("argv", "orig_argv", "is_command"),
    [
        (["/bin/tf-detreg", "train"], ["python", "/bin/tf-detreg", "train"], True),
        (["tf-detreg-script.py"], ["python", "x"], True),
        (["train.py", "tf-detreg"], ["python", "train.py", "tf-detreg"], False),
        (["/x/__main__.py"], ["python", "-m", "tf_detreg", "train"], True),
        (["/x/__main__.py"], ["python", "-m", "tf_detreg.cli"], False),
        ([], ["python"], False),
    ],
)
def test_the_command_is_known_by_its_name(argv, orig_argv, is_command, monkeypatch):
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr("sys.orig_argv", orig_argv)
    assert dr._is_command() == is_command
    monkeypatch.setattr("multiprocessing.parent_process", lambda: "another")
    assert not dr._is_command()

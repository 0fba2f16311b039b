"""What importing the package costs and brings."""

import json
import subprocess
import sys
import zipfile

import pytest

HEAVY = ("tensorflow_probability", "tf_keras", "scann", "matplotlib", "sklearn", "PIL", "rich", "typer", "torch")


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def said() -> dict:
    """What a process says that begins with the package; Keras itself loads some of what is heavy."""
    done = run(
        "import json, sys, keras; before = set(sys.modules); import tf_detreg as dr\n"
        f"said = {{'heavy': [name for name in {HEAVY} if name in set(sys.modules) - before]}}\n"
        "said |= {'tab': dir(dr), 'api': sorted([*dr.__all__, '__version__'])}\n"
        "said |= {'measure': dr.analysis.lipschitz.measure.__name__, 'analysis': dir(dr.analysis)}\n"
        "said['opened'] = {name: getattr(dr, name).__name__ for name in dr.__all__}\n"
        "print(json.dumps(said))"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_nothing_heavy(said):
    assert said["heavy"] == []


def test_every_name_opens_on_demand(said):
    assert set(said["opened"]) == set(said["api"]) - {"__version__"} and all(said["opened"].values())


def test_modules_of_the_analysis_open_on_demand(said):
    assert said["measure"] == "measure" and "neighbors" in said["analysis"]


def test_tab_shows_the_api_and_nothing_else(said):
    assert said["tab"] == said["api"]


def test_another_backend_is_refused_in_words():
    done = run("import keras; keras.backend.backend = lambda: 'jax'; import tf_detreg")
    assert done.returncode != 0 and "KERAS_BACKEND=tensorflow" in done.stderr


def test_load_says_what_it_wants(tmp_path):
    import tf_detreg

    with pytest.raises(FileNotFoundError, match=r"\.keras file"):
        tf_detreg.load(tmp_path / "nothing.keras")


def test_a_saved_embedder_loads_in_a_process_that_only_imports_us(tmp_path):
    import keras
    import numpy as np

    import tf_detreg as dr

    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    embedder = keras.Sequential(
        [keras.Input((16, 16, 3)), dr.backbones.small_cnn(16, width=4), dr.heads.RealNVP(8, depth=2, hidden=8)]
    )
    np.savez(tmp_path / "expected.npz", images=images, embeddings=embedder(images))
    embedder.save(tmp_path / "x.keras")
    assert not [name for name in zipfile.ZipFile(tmp_path / "x.keras").namelist() if name.endswith(".pkl")]
    done = run(
        "import numpy as np, tf_detreg\n"
        f"file = np.load({str(tmp_path / 'expected.npz')!r})\n"
        f"model = tf_detreg.load({str(tmp_path / 'x.keras')!r})\n"
        "print(abs(np.asarray(model(file['images'])) - file['embeddings']).max() < 1e-6)"
    )
    assert done.stdout.strip().endswith("True"), done.stderr[-2000:]


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
    import tf_detreg

    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr("sys.orig_argv", orig_argv)
    assert tf_detreg._is_command() == is_command
    monkeypatch.setattr("multiprocessing.parent_process", lambda: "another")
    assert not tf_detreg._is_command()

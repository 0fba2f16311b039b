"""The wheel in new environments, with and without extras, far from the repository."""

import os
import pathlib
import subprocess
import tempfile

CORE = """
import keras, numpy as np, tf_detreg as dr
images, labels = np.random.default_rng(0).uniform(0, 255, (32, 16, 16, 3)).astype("float32"), np.arange(32) // 4
embedder = keras.Sequential([keras.Input((16, 16, 3)), dr.backbones.small_cnn(16, width=4), dr.heads.Linear(8)])
embedder.compile("adam", loss=dr.losses.MultiSimilarity())
embedder.fit(images, labels, epochs=1, verbose=0)
embedder.save("embedder.keras")
vectors = dr.load("embedder.keras").predict(images, verbose=0)
print(dr.retrieval.evaluate(vectors, labels, k=1).summary())
dr.export.saved_model(embedder, "saved")
try:
    dr.heads.RealNVP(4)(vectors)
except ImportError as error:
    assert "tf-detreg[flows]" in str(error), error
else:
    raise SystemExit("a flow head without the extra flows")
"""


def install(
    python: str, wheel: pathlib.Path, extras: str, folder: pathlib.Path, constraints: pathlib.Path | None
) -> pathlib.Path:
    """Install a wheel into a new environment.

    Args:
        python: The interpreter.
        wheel: The wheel.
        extras: Such as `[all]`; empty for none.
        folder: Of the environment.
        constraints: Versions to install; None takes the newest that the wheel allows.

    Returns:
        The environment's folder of commands.
    """
    subprocess.run([python, "-m", "venv", folder], check=True)
    limits = [] if constraints is None else ["-c", str(constraints)]
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *limits, f"{wheel}{extras}"]
    subprocess.run(command, check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "check"], check=True)
    return folder / "bin"


def try_core(commands: pathlib.Path, demo: bool) -> None:
    """Train, save, evaluate and export without any extra; the command says which one it needs."""
    with tempfile.TemporaryDirectory() as folder:
        _run([commands / "python", "-c", CORE], folder)
        refused = subprocess.run([commands / "tf-detreg", "--version"], cwd=folder, capture_output=True, text=True)
        if not refused.returncode or "pip install 'tf-detreg[cli]'" not in refused.stderr:
            raise SystemExit(f"tf-detreg without the extra cli said: {refused.stderr}")
        for name in ("doctor", *(["demo"] if demo else [])):
            _run([commands / "tf-detreg", name], folder)


def try_all(commands: pathlib.Path, demo: bool) -> None:
    """Run the commands, and the demo if it is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (["--version"], ["recipes"], ["doctor"], *([["demo"]] if demo else [])):
            _run([commands / "tf-detreg", *arguments], folder)


def _run(command: list, folder: str) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_DETREG_CACHE": os.path.join(folder, "cache")}
    environment.pop("PYTHONPATH", None)
    print(f"$ {' '.join(map(str, command[:3]))[:70]}", flush=True)
    subprocess.run(command, cwd=folder, env=environment, check=True)

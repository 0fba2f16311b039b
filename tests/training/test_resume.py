"""Killed in the middle and resumed, a run ends with the weights of an unbroken one, to the last bit."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tf_detreg import datasets, training
from tf_detreg.training import checkpoint

# All that has a state: dropout and interpolation draw, rival and proxies, averages, augmentation, the best epoch.
CONFIG = {
    "data": "digits",
    "backbone": {"name": "small_cnn", "width": 4, "blocks": 2},
    "head": {"name": "RealNVP", "dim": 8, "depth": 2, "hidden": 8, "dropout": 0.2, "conditioner_dropout": 0.2},
    "rival": {"penalty": -0.05, "loss_weight": 0.5, "proxies": "own"},
    "interpolation": {"epsilon": 0.4, "neighbors": 2, "random": True},
    "augment": [{"name": "RandomTranslation", "height_factor": 0.1, "width_factor": 0.1}],
    "optimizer": {"ema": 0.9, "clipnorm": 1.0, "warmup_epochs": 1},
    "patience": 5,
    "classes": 5,
    "images": 4,
    "epochs": 4,
}

CHILD = """
    import os, signal, sys
    import keras, numpy as np
    sys.path.insert(0, {here!r})
    from test_resume import CONFIG, few
    from tf_detreg import training

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 2 and batch == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    def half_a_checkpoint(file, **arrays):
        if int(model_steps[0]) == 2:
            file.write(b"PK" + bytes(1000))
            file.flush()
            os.kill(os.getpid(), signal.SIGTERM)
        model_steps[0] += 1
        write(file, **arrays)

    model_steps, write = [0], np.savez
    if {during_checkpoint!r}:
        np.savez = half_a_checkpoint
    callbacks = [] if {during_checkpoint!r} else [Kill()]
    config = training.RunConfig.from_dict(CONFIG)
    training.train(config, {directory!r}, splits=few(), callbacks=callbacks, verbose=0)
"""


def few():
    """A part of the digits: nine steps an epoch."""
    return datasets.Splits(*(part.subset(np.arange(0, len(part), 6)) for part in datasets.digits()))


def state(run):
    with np.load(checkpoint.checkpoints(run.directory / "checkpoints")[-1]) as file:
        return {name: file[name] for name in file.files if name != "notes"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    config = training.RunConfig.from_dict(CONFIG)
    return training.train(config, tmp_path_factory.mktemp("unbroken") / "run", splits=few(), verbose=0)


def killed(directory, during_checkpoint):
    script = CHILD.format(here=os.path.dirname(__file__), directory=str(directory), during_checkpoint=during_checkpoint)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == -(signal.SIGTERM if during_checkpoint else signal.SIGKILL), done.stderr


@pytest.mark.parametrize("during_checkpoint", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_an_unbroken_one(unbroken, tmp_path, during_checkpoint):
    directory = tmp_path / "run"
    killed(directory, during_checkpoint)
    names = [path.name for path in checkpoint.checkpoints(directory / "checkpoints")]
    assert names == ["epoch-0001.npz", "epoch-0002.npz"]
    assert not (directory / "embedder.keras").exists()
    assert (directory / ".lock").exists()  # of the killed process: it hinders no one
    if during_checkpoint:
        assert list((directory / "checkpoints").glob(".*"))  # half a file, where no one looks for one

    run = training.train(unbroken.config, directory, resume=True, splits=few(), verbose=0)

    ours, theirs = state(run), state(unbroken)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for a, b in zip(run.embedder.get_weights(), unbroken.embedder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.history == unbroken.history
    assert run.evaluation["test"]["metrics"] == unbroken.evaluation["test"]["metrics"]
    assert not list(directory.rglob(".*"))

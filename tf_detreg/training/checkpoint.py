"""The whole state of a training run in one file: what a killed run needs to end as an unbroken one would."""

import json
import os
import pathlib
import re
from typing import Any

import keras
import numpy as np

from tf_detreg import archives
from tf_detreg.files import replacing

_NAME = re.compile(r"epoch-(\d+)\.npz")
_NOTES = "notes"


def state_of(model: keras.Model) -> dict[str, keras.Variable]:
    """Return every variable of a compiled model by a stable name: weights, dropout's random states, optimizer.

    `.keras` files leave the states of random generators out, so a run resumed from one draws other dropout masks.
    """
    state = {}
    for part, variables in (("model", _all_variables(model)), ("optimizer", model.optimizer.variables)):
        for position, variable in enumerate(variables):
            state[f"{part}/{position:05d}"] = variable
    return state


def save(
    model: keras.Model, directory: str | os.PathLike[str], epoch: int, notes: dict[str, Any], keep: int = 2
) -> pathlib.Path:
    """Write `epoch-NNNN.npz` atomically and remove all but the newest `keep` checkpoints.

    Args:
        model: A compiled model whose optimizer is built.
        directory: Where checkpoints lie.
        epoch: Number of finished epochs.
        notes: Anything JSON can hold, to be had back from `restore`.
        keep: Default 2.

    Returns:
        The file.
    """
    path = pathlib.Path(directory) / f"epoch-{epoch:04d}.npz"
    arrays = {name: _readable(variable.numpy()) for name, variable in state_of(model).items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        content: dict[str, Any] = {**arrays, _NOTES: np.array(json.dumps({"epoch": epoch, **notes}))}
        np.savez(file, **content)
    for old in checkpoints(directory)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def restore(model: keras.Model, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Put a checkpoint's state into a model of the same making.

    Returns:
        The notes, with `epoch`.

    Raises:
        ValueError: If the file is damaged or belongs to another model; the model is then unchanged.
    """
    fault = archives.fault(path, [f"{_NOTES}.npy"])
    if fault is not None:
        raise _damaged(path, fault)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        notes = json.loads(str(arrays.pop(_NOTES)))
        notes["epoch"]
    except Exception as error:  # a header that makes no sense: NumPy raises many kinds, and nothing else happens here
        raise _damaged(path, str(error)) from error
    state = state_of(model)
    if state.keys() != arrays.keys() or any(tuple(v.shape) != arrays[n].shape for n, v in state.items()):
        raise ValueError(
            f"{path} holds {len(arrays)} arrays that do not fit this model's {len(state)} variables: "
            "it was written for another model or optimizer."
        )
    for name, variable in state.items():
        variable.assign(arrays[name])
    result: dict[str, Any] = notes
    return result


def _damaged(path: str | os.PathLike[str], what: str) -> ValueError:
    return ValueError(
        f"The checkpoint {path} is damaged ({what}). Delete it: the run then resumes from the one before."
    )


def checkpoints(directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Return the checkpoints of a folder, oldest first."""
    found = {path: _NAME.fullmatch(path.name) for path in pathlib.Path(directory).glob("epoch-*.npz")}
    numbers = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(numbers, key=numbers.__getitem__)


def _readable(values: np.ndarray) -> np.ndarray:
    """Return bfloat16, which NumPy writes and cannot read, as float32, which holds all of it."""
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _all_variables(model: keras.Model) -> list[keras.Variable]:
    """Return weights and random states, without the running means of metrics, which start anew each epoch."""
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    return [variable for variable in model.variables if id(variable) not in metrics]

"""The directory of a run: the names in it, whether a run may use it, and whether the run in it is the same one."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from tf_detreg.files import read_json, replacing, write_json
from tf_detreg.training import checkpoint
from tf_detreg.training.claim import LOCK
from tf_detreg.training.config import RunConfig, differences
from tf_detreg.workspaces import MARK, clean

CONFIG, CHECKPOINTS, BEST, EMBEDDER = "config.json", "checkpoints", "best.keras", "embedder.keras"
HISTORY, EVALUATION, ADAPTER = "history.csv", "evaluation.json", "adapter.npz"
AVERAGED, AVERAGING = "averaged.keras", "averaging.json"
_PROBE = ".writable"
_PARTS = ("validation", "test")
_REPORT = {
    "metrics": dict,
    "intervals": dict,
    "queries": int,
    "classes": int,
    "gallery": int,
    "protocol": str,
    "engine": str,
}


def prepare(directory: pathlib.Path, resume: bool) -> None:
    """Make sure that a run may use the directory, before anything costs time.

    Raises:
        ValueError: If it holds something other than a run, or a run although `resume` is false.
        OSError: If nothing can be written there.
    """
    if not all(_precedes_a_run(path.name) for path in directory.iterdir()):
        if not (directory / CONFIG).is_file():
            raise ValueError(
                f"`directory` must be empty or a run; received {str(directory)!r}, which is not empty. Choose "
                "another directory."
            )
        if not resume:
            raise ValueError(
                f"`directory` must be empty for a new run; received {str(directory)!r}, which already holds a run. "
                "Go on with it (resume=True, --resume), or choose "
                "another directory."
            )
    with replacing(directory / _PROBE) as temporary:
        temporary.touch()
    (directory / _PROBE).unlink()
    for folder in (directory, directory / CHECKPOINTS):
        clean(folder)
        # Of killed runs of version 0.1.0, whose hidden folders bore no mark.
        for rest in folder.glob(".*.*"):
            if not rest.name.endswith(MARK):
                shutil.rmtree(rest, ignore_errors=True)


def compare(directory: pathlib.Path, record: dict[str, dict[str, Any]], writes: bool = True) -> None:
    """Make sure that the run in a directory, if there is one, is this one; note where its images are by now.

    Args:
        directory: Of the run.
        record: The tables `config` and `data` of its `config.json`.
        writes: Whether this process writes the run. Default true.

    Raises:
        ValueError: If it is another run, with every entry that differs, or its `config.json` is damaged.
    """
    path = directory / CONFIG
    if not path.is_file():
        return
    theirs = read_json(path)
    for table in record:
        if not isinstance(theirs.get(table), dict):
            raise ValueError(f"{path} is damaged: it has no table {table!r}. Choose another directory.")
    facts = differences(theirs["data"], record["data"], "data: ")
    # A run of an older version lacks the entries that have been added since.
    old, new = {**RunConfig().to_dict(), **theirs["config"]}, dict(record["config"])
    where = old.get("data"), new["data"]
    if not facts:
        # The same images, wherever they are by now.
        old["data"] = new["data"]
    lines = differences(old, new) + facts
    if lines:
        raise ValueError(
            f"{str(directory)!r} is a run of another configuration:\n  "
            + "\n  ".join(lines)
            + "\nGo on with its configuration, or choose another directory."
        )
    if writes and where[0] != where[1]:
        write_json(path, {**theirs, "config": record["config"]})


@contextlib.contextmanager
def naming_the_last_checkpoint(directory: pathlib.Path) -> Iterator[None]:
    """Say, when a disk is full or gone, what of the run is kept all the same."""
    try:
        yield
    except OSError as error:
        saved = checkpoint.checkpoints(directory / CHECKPOINTS)
        state = f"Its last whole checkpoint is {saved[-1].name}" if saved else "It has no checkpoint yet"
        raise OSError(
            error.errno,
            f"The run cannot be written ({error.strerror or error}). {state}; what is there is unharmed. Free some "
            "space, then go on with resume=True (--resume)",
            os.fspath(directory),
        ) from error


def _precedes_a_run(name: str) -> bool:
    """Return whether a file may be in a directory before its run has begun: a kill leaves them behind."""
    return name in (LOCK, _PROBE) or name.startswith((f".{_PROBE}.", f".{CONFIG}."))


def read_evaluation(path: pathlib.Path) -> dict[str, Any]:
    """Return what `evaluation.json` says: by part (`validation`, `test`), what `RetrievalReport.to_dict` holds.

    Raises:
        ValueError: If the file is damaged, or an entry that its readers need is missing or of another kind.
    """
    reports = read_json(path)
    for part, report in reports.items():
        if part not in _PARTS:
            raise ValueError(f"{path} is damaged: it holds {part!r}, which is none of {', '.join(_PARTS)}.")
        nested = [report[key] for key in ("seen", "unseen") if isinstance(report, dict) and report.get(key)]
        for one in (report, *nested):
            wrong = [
                key for key, kind in _REPORT.items() if not isinstance(one, dict) or not isinstance(one.get(key), kind)
            ]
            if wrong:
                raise ValueError(f"{path} is damaged: {part!r} has no {wrong[0]!r} as it was written.")
    return reports

"""The whole way through once, on embedded data: train, compare, export, show.

What needs a package that is not installed is left out, and said to be: the core alone runs the rest.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from tf_detreg import extras
from tf_detreg.retrieval import RetrievalReport

TARGET = 0.01  # share of queries of unknown characters that may be taken for a known one
# What is left out or replaced without a package.
PARTS = {
    "matplotlib": "the report, and characters of many fonts (those of one are used)",
    "tensorflow_probability": "the flow (a linear head is used)",
    "tf_keras": "the flow (a linear head is used)",
    "sklearn": "the threshold of a match",
    "ai_edge_litert": "the .tflite files",
}


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo leaves behind.

    Args:
        reports: Retrieval on the held-back classes, of raw pixels, before training and after.
        run: The run's directory.
        report: The HTML page; None without matplotlib.
        saved_model: The version folder for TensorFlow Serving.
        lite: The `.tflite` files, float32 and float16; empty without ai-edge-litert.
        missing: The modules of `PARTS` that are not installed.
    """

    reports: Mapping[str, RetrievalReport]
    run: pathlib.Path
    report: pathlib.Path | None
    saved_model: pathlib.Path
    lite: tuple[pathlib.Path, ...]
    missing: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return a line for each file."""
        lines = [f"SavedModel  {self.saved_model}    (the folder above it is what TensorFlow Serving reads)"]
        lines += [f"LiteRT      {path}" for path in self.lite]
        return [*lines, *([f"Report      {self.report}    (open it in a browser)"] if self.report else [])]


def demo(
    directory: str | os.PathLike[str],
    exports: str | os.PathLike[str],
    seed: int = 0,
    verbose: int | str = "auto",
    **changes: Any,
) -> Demo:
    """Train on characters as fonts draw them, evaluate on characters never seen, export and show.

    Args:
        directory: The run directory; made if it is not there. A run that was cut off there is resumed.
        exports: Folder for the SavedModel and the `.tflite` files.
        seed: Of weights, batches and the choice of pictures. Default 0.
        verbose: 0 shows no progress; else it is shown with the time left, and a line an epoch. Default `"auto"`.
        **changes: Entries of the recipe `glyphs` to change.

    Returns:
        Results and files.
    """
    from tf_detreg import export, recipes
    from tf_detreg.analysis.runs import compare_run, write_report
    from tf_detreg.calibrating import calibrate_run
    from tf_detreg.callbacks import TimeLeft
    from tf_detreg.retrieval.calibration import enough_images
    from tf_detreg.training import train

    missing = extras.missing(*PARTS)
    if missing and verbose:
        print(left_out(missing), file=sys.stderr, flush=True)
    config = recipes.load("glyphs").replace(**{**_replaced(missing), "seed": seed, **changes})
    # Bars of single epochs would hide the one of the whole training.
    with TimeLeft(show=None if verbose else False) as time_left:
        run = train(config, directory, resume=True, verbose=2 if verbose else 0, callbacks=[time_left])
    splits = run.splits()
    page, reports = (None, compare_run(run, splits)[2]) if "matplotlib" in missing else write_report(run, splits)
    if "sklearn" not in missing and enough_images(len(splits.validation), TARGET):
        calibrate_run(run, TARGET)
    lite = () if "ai_edge_litert" in missing else ("float32", "float16")
    done = export.export_run(
        run,
        exports,
        splits,
        name="demo",
        formats=["saved_model", *lite],
        check=False,
        card={"name": "Characters", "data": "Characters as fonts inside installed packages draw them."},
    )
    files = tuple(done.paths[name] for name in lite)
    return Demo(reports, run.directory, page, done.paths["saved_model"], files, missing)


def left_out(missing: tuple[str, ...]) -> str:
    """Return what the demo does without, by packages that are missing, and how to install them.

    Example:
        >>> left_out(("sklearn",))
        "Left out, since scikit-learn is not installed: the threshold of a match. pip install 'tf-detreg[all]'"
    """
    names = ", ".join(extras.PACKAGES[name].distribution for name in missing)
    parts = "; ".join(dict.fromkeys(PARTS[name] for name in missing))
    verb = "is" if len(missing) == 1 else "are"
    return f"Left out, since {names} {verb} not installed: {parts}. pip install 'tf-detreg[all]'"


def main() -> None:
    """Run the demo where the packages of the command line are missing."""
    from tf_detreg.analysis.run_page import recall_rows

    result = demo("runs/demo", "saved_models")
    print("Retrieval among characters never seen in training, in %")
    for row in recall_rows(result.reports):
        print(f"{row.pop('embedding'):16}", *(f"{name} {value:6.2f}" for name, value in row.items()), sep="  ")
    print(*result.lines(), sep="\n")


def _replaced(missing: tuple[str, ...]) -> dict[str, Any]:
    """Return the entries of the recipe that are others without some packages."""
    changes: dict[str, Any] = {}
    if "matplotlib" in missing:
        changes["data"] = "letters"
    if {"tensorflow_probability", "tf_keras"} & set(missing):
        changes["head"] = {"name": "Linear", "dim": 128}
    return changes

"""The whole way through once, on embedded data: train, compare, export, show."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_detreg.retrieval import RetrievalReport

TARGET = 0.01  # share of queries of unknown characters that may be taken for a known one


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo leaves behind.

    Args:
        reports: Retrieval on the held-back classes, of raw pixels, before training and after.
        run: The run's directory.
        report: The HTML page.
        saved_model: The version folder for TensorFlow Serving.
        lite: The `.tflite` files, float32 and float16.
    """

    reports: Mapping[str, RetrievalReport]
    run: pathlib.Path
    report: pathlib.Path
    saved_model: pathlib.Path
    lite: tuple[pathlib.Path, ...]


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
        Results and places.
    """
    from tf_detreg import export, recipes
    from tf_detreg.analysis.runs import write_report
    from tf_detreg.calibrating import calibrate_run
    from tf_detreg.callbacks import TimeLeft
    from tf_detreg.retrieval.calibration import enough_images
    from tf_detreg.training import train

    config = recipes.load("glyphs").replace(seed=seed, **changes)
    # Bars of single epochs would hide the one of the whole training.
    with TimeLeft(show=None if verbose else False) as time_left:
        run = train(config, directory, resume=True, verbose=2 if verbose else 0, callbacks=[time_left])
    splits = run.splits()
    page, reports = write_report(run, splits)
    if enough_images(len(splits.validation), TARGET):
        calibrate_run(run, TARGET)
    done = export.export_run(
        run,
        exports,
        splits,
        name="demo",
        formats=["saved_model", "float32", "float16"],
        check=False,
        card={"name": "Characters", "data": "Characters as the fonts inside matplotlib draw them."},
    )
    lite = done.paths["float32"], done.paths["float16"]
    return Demo(reports, run.directory, page, done.paths["saved_model"], lite)

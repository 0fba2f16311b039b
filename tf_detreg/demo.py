"""The whole way through once, on embedded data: train, compare, export, show."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tf_detreg.retrieval import RetrievalReport

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet, Splits
    from tf_detreg.training import Embedded, Run

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
    from tf_detreg.calibrating import calibrate_run
    from tf_detreg.callbacks import TimeLeft
    from tf_detreg.retrieval.calibration import enough_images
    from tf_detreg.training import train

    config = recipes.load("glyphs").replace(seed=seed, **changes)
    # Bars of single epochs would hide the one of the whole training.
    with TimeLeft(show=None if verbose else False) as time_left:
        run = train(config, directory, resume=True, verbose=2 if verbose else 0, callbacks=[time_left])
    page, reports = write_report(run)
    if enough_images(len(run.splits().validation), TARGET):
        calibrate_run(run, TARGET)
    exports = pathlib.Path(exports)
    card: dict[str, Any] = {
        "name": "Characters",
        "data": "Characters as the fonts inside matplotlib draw them.",
        "recipe": config.to_dict(),
        **export.run_results(run.directory),
    }
    done = export.release(
        run.embedder, exports / "demo", formats=["saved_model", "float32", "float16"], check=False, card=card
    )
    lite = done.paths["float32"], done.paths["float16"]
    return Demo(reports, run.directory, page, done.paths["saved_model"], lite)


def held_back(splits: "Splits") -> "ImageSet":
    """Return the test classes of a data set, or where it has none those for validation.

    Raises:
        ValueError: If it has neither.
    """
    part = splits.test if len(splits.test) else splits.validation
    if not len(part):
        raise ValueError(
            f"{splits.train.name} has neither test nor validation images: there is nothing to measure on. Give the "
            "data set test or validation classes."
        )
    return part


def write_report(
    run: "Run", splits: "Splits | None" = None, embedded: "Sequence[Embedded] | None" = None
) -> tuple[pathlib.Path, dict[str, RetrievalReport]]:
    """Evaluate a run on its test classes, beside raw pixels and the untrained embedder, and write its `report.html`.

    Args:
        run: `training.Run`.
        splits: Its data, if loaded already.
        embedded: What `embed_held_back` makes of them, if there already.

    Returns:
        The page, and the reports by embedding.
    """
    import keras

    from tf_detreg.analysis import run_page
    from tf_detreg.training import embed
    from tf_detreg.training.assembly import build_embedder

    splits = run.splits() if splits is None else splits
    after = embed_held_back(run, splits) if embedded is None else embedded
    shown = [part.subset(found.indices) for part, found in zip(_measured_on(splits), after, strict=True)]
    keras.utils.set_random_seed(run.config.seed)
    size = shown[0].image_size
    assert size is not None  # an image set takes it from its images if it is not given
    untrained = build_embedder(run.config, size)
    final = [found.embeddings for found in after]
    embeddings = {
        "raw pixels": [run_page.raw_pixels(part) for part in shown],
        "before training": [embed(untrained, part).embeddings for part in shown],
        "after training": final,
    }
    reports = run_page.compare(embeddings, [part.labels for part in shown], run.config.k)
    page = run_page.write(
        run.directory / "report.html",
        f"{run.directory.resolve().name}: {shown[0].name}",
        shown,
        final,
        reports,
        run.history,
        run.config.to_dict(),
        run.config.seed,
        trained_on=splits.train.class_names,
    )
    return page, reports


def embed_held_back(run: "Run", splits: "Splits", progress: bool | None = None) -> "list[Embedded]":
    """Return what `training.embed` makes of the images to measure on, and where the data set has one, of their gallery.

    Args:
        run: `training.Run`.
        splits: Its data.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.
    """
    from tf_detreg.training import embed

    return [embed(run.embedder, part, progress=progress) for part in _measured_on(splits)]


def _measured_on(splits: "Splits") -> "list[ImageSet]":
    """Return the test images, and their gallery where the data set has one."""
    gallery = getattr(splits, "gallery", None)
    return [held_back(splits)] + ([] if gallery is None else [gallery])

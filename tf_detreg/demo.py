"""The whole way through once, on embedded data: train, compare, export, show."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

from tf_detreg.retrieval import RetrievalReport


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
    directory: str | os.PathLike, exports: str | os.PathLike, seed: int = 0, verbose: int | str = "auto", **changes
) -> Demo:
    """Train on characters as fonts draw them, evaluate on characters never seen, export and show.

    Args:
        directory: The run directory; made if it is not there. A run that was cut off there is resumed.
        exports: Folder for the SavedModel and the `.tflite` files.
        seed: Of weights, batches and the choice of pictures. Defaults to 0.
        verbose: Of `keras.Model.fit`.
        **changes: Entries of the recipe `glyphs` to change.

    Returns:
        Results and places.
    """
    from tf_detreg import export, recipes
    from tf_detreg.training import train

    config = recipes.load("glyphs").replace(seed=seed, **changes)
    run = train(config, directory, resume=True, verbose=verbose)
    page, reports = write_report(run)
    exports = pathlib.Path(exports)
    card = export.model_card(
        run.embedder,
        name="Characters",
        data="Characters as the fonts inside matplotlib draw them.",
        recipe=config.to_dict(),
        **export.run_results(run.directory),
    )
    model = export.saved_model(run.embedder, exports / "demo", card=card)
    lite = tuple(
        export.litert(run.embedder, exports / f"demo{suffix}.tflite", quantize=quantize)
        for suffix, quantize in (("", None), ("-float16", "float16"))
    )
    return Demo(reports, run.directory, page, model, lite)


def held_back(splits):
    """The test classes of a data set, or where it has none those for validation.

    Raises:
        ValueError: If it has neither.
    """
    part = splits.test if len(splits.test) else splits.validation
    if not len(part):
        raise ValueError(
            f"{splits.train.name} holds no class back from training: there is nothing to measure on. Give the data set "
            "test or validation classes."
        )
    return part


def write_report(run, test=None, embedded=None) -> tuple[pathlib.Path, dict[str, RetrievalReport]]:
    """Evaluate a run on its test classes, beside raw pixels and the untrained embedder, and write its `report.html`.

    Args:
        run: `training.Run`.
        test: The images to measure on, if loaded already. Defaults to the run's classes that were held back.
        embedded: What `training.embed` makes of them, if there already.

    Returns:
        The page, and the reports by embedding.
    """
    import keras

    from tf_detreg.analysis import run_page
    from tf_detreg.training import embed
    from tf_detreg.training.assembly import build_embedder

    test = held_back(run.splits()) if test is None else test
    after = embed(run.embedder, test) if embedded is None else embedded
    shown = test.subset(after.indices)
    keras.utils.set_random_seed(run.config.seed)
    before = embed(build_embedder(run.config, shown.image_size), shown).embeddings
    embeddings = {
        "raw pixels": run_page.raw_pixels(shown),
        "before training": before,
        "after training": after.embeddings,
    }
    reports = run_page.compare(embeddings, shown.labels, run.config.k)
    page = run_page.write(
        run.directory / "report.html",
        f"{run.directory.resolve().name}: {shown.name}",
        shown,
        after.embeddings,
        reports,
        run.history,
        run.config.to_dict(),
        run.config.seed,
    )
    return page, reports

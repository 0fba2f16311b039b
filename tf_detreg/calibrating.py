"""Decisions of a run: fitted on its validation classes, reported on its test classes, and watched on new images."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_detreg import retrieval, training
from tf_detreg.retrieval.calibration import checked_target
from tf_detreg.retrieval.decision import FILE
from tf_detreg.retrieval.trained_classes import is_trained

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet

TRAINED_ON = "The classes it was fitted on were trained on too: classes that are new will be accepted more often."


def calibrate_run(run: training.Run, target: float = 0.01, **options: Any) -> retrieval.Decision:
    """Fit a decision on a run's validation classes, report it on its test classes, and keep it as `decision.json`.

    Args:
        run: The run.
        target: Largest share of queries of unknown classes that may be accepted. Default 0.01.
        **options: Of `retrieval.calibrate`.

    Returns:
        The decision.

    Raises:
        ValueError: If the data has no validation classes, or too few images for the target.
    """
    splits = run.splits()
    if not len(splits.validation):
        raise ValueError(
            f"{splits.train.name} has no validation images to fit a threshold on. Train with validation classes, or "
            f"call "
            "`retrieval.calibrate` with embeddings of classes that training has not seen."
        )
    validation, trained = _unseen(splits.validation, splits.train.class_names)
    checked_target(target, len(validation))  # before minutes of embedding
    test, _ = _unseen(splits.test, splits.train.class_names) if len(splits.test) else (None, False)
    embedded = training.embed(run.embedder, validation, title="Embedding validation images")
    measured = None if test is None else training.embed(run.embedder, test, title="Embedding test images")
    decision = retrieval.calibrate(
        embedded.embeddings,
        [validation.class_names[label] for label in embedded.labels],
        target=target,
        fingerprint=retrieval.fingerprint(run.embedder),
        seed=run.config.seed,
        test=None if measured is None else (measured.embeddings, measured.labels),
        **options,
    )
    if trained:
        decision = dataclasses.replace(decision, notes=(*decision.notes, TRAINED_ON))
    decision.save(pathlib.Path(run.directory) / FILE)
    return decision


def open_set_run(
    run: training.Run, images: "ImageSet", embedded: training.Embedded, **options: Any
) -> retrieval.OpenSetReport:
    """Measure open-set identification on images of a run, the density of its head included where it has one.

    Args:
        run: The run.
        images: The `ImageSet`.
        embedded: What `training.embed` made of it.
        **options: Of `retrieval.open_set`.
    """
    flow = any(hasattr(layer, "bijector") for layer in run.embedder.layers)
    density = retrieval.FlowDensity.of(run.embedder, images) if flow else None
    return retrieval.open_set(embedded.embeddings, embedded.labels, density=density, seed=run.config.seed, **options)


def monitor_index(
    place: str | os.PathLike[str],
    queries: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str] | None = None,
) -> retrieval.Drift:
    """Compare the scores of new images with those that an index's decision was fitted on.

    Args:
        place: The index, or a folder of its shards.
        queries: Image files, or folders of them.
        directory: The run whose model made the index. Default None: as the index noted.

    Raises:
        ValueError: If neither the index nor its run has a decision, or its score is not the nearest cosine.
    """
    from tf_detreg.indexing import open_catalog
    from tf_detreg.searching import image_files

    index, run, decision = open_catalog(place, directory)
    if decision is None:
        raise ValueError(
            f"Neither the index {str(place)!r} nor its run has a decision. `tf-detreg calibrate {run.directory} "
            f"--index "
            f"{place}` makes one."
        )
    if decision.score != "nearest":
        raise ValueError(f"The decision is on the score {decision.score!r}; only `nearest` can be watched.")
    found = training.embed(run.embedder, image_files(queries, run.embedder), progress=None)
    matches = index.search(found.embeddings, 1, fingerprint=retrieval.fingerprint(run.embedder))
    return retrieval.monitor(decision, matches.scores[:, 0])


def _unseen(images: "ImageSet", trained_names: Sequence[str]) -> "tuple[ImageSet, bool]":
    """Return the images of classes that were not trained on, or all where there are none; and whether that is so."""
    trained = is_trained(images.class_names, trained_names)
    if trained.all():
        return images, True
    return images.subset(~trained[images.labels]), False

"""What a run is worth: its evaluation on held-back classes, its smoothness, and its report."""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_detreg import checks, retrieval, training
from tf_detreg.analysis import lipschitz, run_page
from tf_detreg.analysis.memory import MEMORY
from tf_detreg.datasets import Splits
from tf_detreg.datasets.held_back import held_back, measured_on
from tf_detreg.retrieval import RetrievalReport, inputs
from tf_detreg.retrieval.engines import ENGINES
from tf_detreg.retrieval.trained_classes import TrainedClasses, by_training, is_trained
from tf_detreg.training.assembly import build_embedder

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunEvaluation:
    """What `evaluate_run` found.

    Args:
        report: Of all queries.
        parts: The same, apart for classes that were trained on and for those that were not.
        embedded: What `training.embed` made of the queries, and where the data set has one, of their gallery.
    """

    report: RetrievalReport
    parts: TrainedClasses
    embedded: tuple[training.Embedded, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain dictionaries, lists, numbers and strings."""
        return self.report.to_dict() | self.parts.to_dict()


def evaluate_run(
    run: training.Run,
    splits: Splits | None = None,
    *,
    engine: str = "auto",
    clusters: bool = False,
    cross_group: bool = False,
    progress: bool | None = None,
) -> RunEvaluation:
    """Measure a run on its test classes, or where it has none on those for validation.

    Args:
        run: Of `training.train` or `training.load_run`.
        splits: Its data, if loaded already. Default: they are loaded.
        engine: Of `retrieval.evaluate`. Default `"auto"`.
        clusters: Whether to add the metrics of a clustering. Default false.
        cross_group: Whether items of the query's class and group leave the gallery. Default false.
        progress: Whether to show a progress bar. Default None: in a terminal.

    Raises:
        ValueError: If there is nothing to measure on, or no groups for `cross_group`.
    """
    checks.choice("engine", engine, ENGINES)  # before the work
    splits = run.splits() if splits is None else splits
    sets = measured_on(splits)
    embedded = tuple(training.embed(run.embedder, part, progress=progress) for part in sets)
    found, *gallery = embedded
    options: dict[str, Any] = {}
    if gallery:
        options |= {"gallery": gallery[0].embeddings, "gallery_labels": gallery[0].labels}
    if cross_group:
        options |= _groups(splits.train.name, embedded)
    others = len(gallery[0].labels) if gallery else len(found.labels) - 1
    report = retrieval.evaluate(
        found.embeddings,
        found.labels,
        **options,
        k=inputs.ranks_within(run.config.k, others),
        engine=engine,
        clusters=clusters,
        progress=progress,
    )
    trained = is_trained(sets[0].class_names, splits.train.class_names)
    options |= {"k": run.config.k, "engine": engine, "progress": progress}
    parts = by_training(found.embeddings, found.labels, trained, **options)
    return RunEvaluation(report, parts, embedded)


def _groups(name: str, embedded: Sequence[training.Embedded]) -> dict[str, Any]:
    """Return the groups of queries and gallery as arguments of `retrieval.evaluate`."""
    if any(found.groups is None for found in embedded):
        raise checks.invalid(
            "cross_group",
            f"be false, since {name.removesuffix('/train')} has no groups",
            "true",
            "A .csv file gives them in a column `group`.",
        )
    return dict(zip(("groups", "gallery_groups"), (found.groups for found in embedded), strict=False))


def analyze_run(
    run: training.Run, splits: Splits | None = None, *, samples: int = 64, memory: float = MEMORY
) -> tuple[lipschitz.LipschitzReport, bool]:
    """Measure how much a run's map stretches, on classes that were trained on and on others.

    Args:
        run: Of `training.train` or `training.load_run`.
        splits: Its data, if loaded already. Default: they are loaded.
        samples: Points at which Jacobians are measured. Default 64.
        memory: Gigabytes that a step may take. Default 0.6.

    Returns:
        The report, and whether the other classes are new: false where every test class was trained on, whose images
        are then other images of the same classes.
    """
    splits = run.splits() if splits is None else splits
    test = held_back(splits)
    trained = is_trained(test.class_names, splits.train.class_names)
    if not trained.all():
        test = test.subset(~trained[test.labels])
    report = lipschitz.measure(
        run.embedder,
        splits.train,
        unseen=test,
        samples=samples,
        pairs=8 * samples,
        seed=run.config.seed,
        memory=memory,
    )
    return report, not trained.all()


def compare_run(
    run: training.Run, splits: Splits | None = None, embedded: Sequence[training.Embedded] | None = None
) -> tuple[list[Any], list[np.ndarray], dict[str, RetrievalReport]]:
    """Evaluate a run beside raw pixels and the untrained embedder, if its pretrained weights can still be loaded.

    Args:
        run: Of `training.train` or `training.load_run`.
        splits: Its data, if loaded already. Default: they are loaded.
        embedded: `RunEvaluation.embedded`, if there already. Default: the images are embedded.

    Returns:
        The sets of images that it was measured on, their embeddings after training, and the reports by embedding.
    """
    splits = run.splits() if splits is None else splits
    sets = measured_on(splits)
    if embedded is None:
        embedded = [training.embed(run.embedder, part) for part in sets]
    shown = [part.subset(found.indices) for part, found in zip(sets, embedded, strict=True)]
    keras.utils.set_random_seed(run.config.seed)
    final = [found.embeddings for found in embedded]
    embeddings = {"raw pixels": [run_page.raw_pixels(part) for part in shown]}
    try:
        untrained = build_embedder(run.config, run.embedder.inputs[0].shape[1:3])
    except (ValueError, OSError, ImportError) as error:
        # A preset's folder that has moved, or no network: the run has its trained model, and that is measured.
        logger.warning("The model before training is left out, as it cannot be built again: %s", error)
    else:
        embeddings["before training"] = [
            training.embed(untrained, part, title="Embedding, before training").embeddings for part in shown
        ]
    embeddings["after training"] = final
    return shown, final, run_page.compare(embeddings, [part.labels for part in shown], run.config.k)


def write_report(
    run: training.Run, splits: Splits | None = None, embedded: Sequence[training.Embedded] | None = None
) -> tuple[pathlib.Path, dict[str, RetrievalReport]]:
    """Evaluate a run beside raw pixels and the untrained embedder, and write its `report.html`.

    Args:
        run: Of `training.train` or `training.load_run`.
        splits: Its data, if loaded already. Default: they are loaded.
        embedded: `RunEvaluation.embedded`, if there already. Default: the images are embedded.

    Returns:
        The page, and the reports by embedding.
    """
    splits = run.splits() if splits is None else splits
    shown, final, reports = compare_run(run, splits, embedded)
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

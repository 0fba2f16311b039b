"""Open-set identification: is the query's class in the gallery at all, and is the nearest item of it?"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.retrieval import curves, trials
from tf_detreg.retrieval.report import plain_json
from tf_detreg.retrieval.verification import LEAST_ERRORS, bootstrap, span


@dataclasses.dataclass(frozen=True)
class OpenSetReport:
    """Result of `retrieval.open_set`.

    Args:
        auroc: Score name to the chance that a query of a known class scores higher than one of an unknown class.
        dir: Score name to {FPIR: detection-and-identification rate}: the share of known queries whose score reaches the
            threshold and whose nearest item is right, where the threshold accepts that share of unknown queries.
        intervals: (score, "auroc" or FPIR) to the 95 % interval, over classes.
        identified: Share of known queries whose nearest item is right, whatever its score.
        queries: Known queries, unknown queries.
        classes: Number of classes.
        gallery: Mean number of items in the gallery.
        notes: What a reader should know.
    """

    auroc: Mapping[str, float]
    dir: Mapping[str, Mapping[float, float]]
    intervals: Mapping[Any, tuple[float, float]]
    identified: float
    queries: tuple[int, int]
    classes: int
    gallery: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return JSON text."""
        spans = {f"{score} {what}": interval for (score, what), interval in self.intervals.items()}
        return plain_json(dataclasses.replace(self, intervals=spans))

    def to_markdown(self) -> str:
        """Return a Markdown table, one score a row, with a sentence and the notes."""
        rates = list(next(iter(self.dir.values())))
        lines = ["| score | AUROC | " + " | ".join(f"DIR@FPIR={rate:g}" for rate in rates) + " |"]
        lines.append("|---|" + "---:|" * (1 + len(rates)))
        for score, auroc in self.auroc.items():
            cells = [(auroc, "auroc"), *((self.dir[score][rate], rate) for rate in rates)]
            texts = [f"{100 * value:.2f} ({span(self.intervals.get((score, what)))})" for value, what in cells]
            lines.append(f"| {score} | " + " | ".join(text.replace(" ()", "") for text in texts) + " |")
        lines += ["", self.summary(), *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """Return a sentence on what was measured."""
        return (
            f"Percent. {self.queries[0]:,} known and {self.queries[1]:,} unknown queries of {self.classes:,} "
            f"classes, held "
            f"out in turn of galleries of {self.gallery:,} items; nearest item right: {100 * self.identified:.2f} %."
        )


def open_set(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    scores: Sequence[str] = ("nearest", "margin", "mean", "normalized"),
    fpirs: Sequence[float] = (1e-1, 1e-2, 1e-3),
    neighbors: int = 5,
    density: Callable[[np.ndarray], np.ndarray] | None = None,
    folds: int = trials.FOLDS,
    resamples: int = 200,
    seed: int = 0,
    progress: bool | None = None,
) -> OpenSetReport:
    """Measure how well scores tell queries of known classes from those of unknown ones.

    Classes are dealt into folds and held out of the gallery in turn, so that every image is a query of an unknown class
    once and of a known class once (which does not find itself).

    Args:
        embeddings: (N, dim) vectors.
        labels: (N,) classes.
        scores: Of `"nearest"` (cosine of the nearest item), `"margin"` (minus that of the nearest item of another
            class), `"mean"` (of the `neighbors` nearest), `"normalized"` (minus the item's mean cosine to its nearest
            items of other classes, which hubs have high) and `"density"` (log p under a flow head). Default: the
            first four, and the last with `density`.
        fpirs: False-positive identification rates to report at. Default 0.1, 0.01, 0.001; those for which there are
            too few queries are left out, with a note.
        neighbors: k of `"mean"` and `"normalized"`. Default 5.
        density: A `FlowDensity` of these vectors' images. Default None.
        folds: Default 5.
        resamples: Of the bootstrap over classes. Default 200; 0 leaves intervals out.
        seed: Of folds and bootstrap. Default 0.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

    Returns:
        An `OpenSetReport`.

    Raises:
        ValueError: If the vectors or labels do not fit, there is one class, or no class has two images.

    Example:
        >>> points = np.repeat(np.eye(4), 3, axis=0) + 0.1 * np.random.default_rng(0).random((12, 4))
        >>> open_set(points, np.repeat(np.arange(4), 3), scores=("nearest",), resamples=0).auroc
        {'nearest': 1.0}

    Reference:
        Günther, Cruz, Rudd, Boult: Toward open-set face recognition. CVPR Workshops 2017; ISO/IEC 19795-1 (the rates).
    """
    unit, classes, _ = trials.checked(embeddings, labels)
    fpirs = tuple(sorted((checks.within("fpirs", rate, 0, 1, "(]") for rate in fpirs), reverse=True))
    scores, seed = (scores,) if isinstance(scores, str) else scores, checks.integer("seed", seed)
    scores = (*scores, *(("density",) if density is not None and "density" not in scores else ()))
    neighbors, resamples = checks.integer("neighbors", neighbors, 1), checks.integer("resamples", resamples)
    done = trials.run(unit, classes, scores, neighbors, density, checks.integer("folds", folds, 2), seed, progress)
    asked = done.has_positive
    if not asked.any():
        raise ValueError(
            "Every class has one image: no query has its class in the gallery. Give classes of two or more."
        )
    notes = []
    if (single := int((~asked).sum())) > 0:
        notes.append(f"{single:,} images are the only ones of their class: they are queries of unknown classes alone.")
    stated = [rate for rate in fpirs if rate * len(classes) >= LEAST_ERRORS]
    if len(stated) < len(fpirs):
        missing = ", ".join(f"{rate:g}" for rate in fpirs if rate not in stated)
        notes.append(
            f"Nothing is stated at FPIR {missing}: {len(classes):,} queries state {LEAST_ERRORS / len(classes):.1g} "
            f"or more "
            "(ten false accepts)."
        )

    def measure(drawn: np.ndarray) -> dict[tuple[str, object], float]:
        weights = drawn[classes]
        found: dict[tuple[str, object], float] = {}
        for name in scores:
            known, unknown = done.known[name][asked], done.unknown[name]
            curve = curves.roc(known, unknown, weights[asked], weights)
            found[name, "auroc"] = curve.auc
            for rate in stated:
                hit = done.right[asked] & (known >= curve.at_far(rate)[0])
                found[name, rate] = float(weights[asked] @ hit / weights[asked].sum())
        return found

    found = measure(np.ones(classes.max() + 1))
    return OpenSetReport(
        auroc={name: found[name, "auroc"] for name in scores},
        dir={name: {rate: found[name, rate] for rate in stated} for name in scores},
        intervals=bootstrap(measure, int(classes.max()) + 1, resamples, seed) if resamples else {},
        identified=float(done.right[asked].mean()),
        queries=(int(asked.sum()), len(classes)),
        classes=int(classes.max()) + 1,
        gallery=done.gallery,
        notes=tuple(notes),
    )

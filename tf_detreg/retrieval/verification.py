"""Verification: are two images of the same class? Error rates over pairs, with intervals over classes."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.retrieval import curves, inputs, intervals
from tf_detreg.retrieval import pairs as pair_lists
from tf_detreg.retrieval.report import plain_json

if TYPE_CHECKING:
    import matplotlib.figure

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
LEAST_ERRORS = 10  # expected: with fewer, a rate is not told from half or twice its size


@dataclasses.dataclass(frozen=True)
class Rate:
    """What a threshold does.

    Args:
        far: The false-accept rate that was asked for.
        threshold: The lowest score whose false-accept rate is at most that.
        tar: Share of pairs of one class that reach it.
        interval: 95 % interval of `tar`, over classes; None where it was not computed.
    """

    far: float
    threshold: float
    tar: float
    interval: tuple[float, float] | None

    @property
    def fnmr(self) -> float:
        """Return 1 − TAR, the false-reject or false-non-match rate."""
        return 1.0 - self.tar


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """Result of `retrieval.verification`.

    Args:
        auc: Area under the ROC curve.
        eer: Equal-error rate.
        rates: False-accept rate to the `Rate` at it, of those that the number of pairs allows.
        intervals: `"auc"`, `"eer"` to their 95 % intervals, from a bootstrap over classes.
        genuine: Pairs of one class that were compared.
        impostor: Pairs of two classes that were compared.
        of: How many of each there are.
        classes: Number of classes.
        accuracy: Of a list with folds: mean accuracy with the threshold chosen on the other folds, and its standard
            error; None otherwise.
        notes: What a reader should know.
        curve: The ROC curve. Not written to JSON, as the scores.
        scores: `"genuine"`, `"impostor"` to the scores.
    """

    auc: float
    eer: float
    rates: Mapping[float, Rate]
    intervals: Mapping[str, tuple[float, float]]
    genuine: int
    impostor: int
    of: tuple[int, int]
    classes: int
    accuracy: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    curve: curves.Roc | None = dataclasses.field(default=None, repr=False, compare=False)
    scores: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> str:
        """Return JSON text of everything but the curve and the scores."""
        return plain_json(self, without=("curve", "scores"))

    def to_markdown(self) -> str:
        """Return a Markdown table, a sentence and the notes."""
        lines = ["| | % | 95 % interval | threshold |", "|---|---:|---:|---:|"]
        for name in ("auc", "eer"):
            lines.append(f"| {name.upper()} | {100 * getattr(self, name):.2f} | {span(self.intervals.get(name))} | |")
        for far, rate in self.rates.items():
            lines.append(f"| TAR@FAR={far:g} | {100 * rate.tar:.2f} | {span(rate.interval)} | {rate.threshold:.4f} |")
        if self.accuracy:
            lines.append(f"| accuracy over folds | {100 * self.accuracy[0]:.2f} | ± {100 * self.accuracy[1]:.2f} | |")
        lines += ["", self.summary(), *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """Return a sentence on what was compared."""
        return (
            f"{self.genuine:,} of {self.of[0]:,} pairs of one class and {self.impostor:,} of {self.of[1]:,} pairs of "
            f"two, "
            f"{self.classes:,} classes."
        )

    def plot_det(self, path: str | os.PathLike[str] | None = None) -> "matplotlib.figure.Figure":
        """Draw FRR against FAR, both on normal-deviate axes (a DET curve); write it to `path` if there is one."""
        from tf_detreg.retrieval import decision_plots

        return decision_plots.det(self, path)

    def plot_scores(self, path: str | os.PathLike[str] | None = None) -> "matplotlib.figure.Figure":
        """Draw histograms of the scores of both kinds of pairs; write it to `path` if there is one."""
        from tf_detreg.retrieval import decision_plots

        return decision_plots.histograms(self.scores, {}, path)


def verification(
    embeddings: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    pairs: pair_lists.Pairs | None = None,
    fars: Sequence[float] = FARS,
    max_pairs: int = 2_000_000,
    resamples: int = 200,
    seed: int = 0,
) -> VerificationReport:
    """Measure how well a threshold on the cosine tells pairs of one class from pairs of two.

    All pairs are compared, or where there are more than `max_pairs` of a kind, a sample that is stratified by class,
    with weights, so that a million items take bounded memory. A false-accept rate is only stated where at least ten
    false accepts are expected among the pairs compared. Intervals draw classes with replacement: a pair of two classes
    counts as often as both were drawn together.

    Args:
        embeddings: (N, dim) vectors.
        labels: (N,) classes. May be None with `pairs`: each item is then a class of its own for the intervals.
        groups: (N,) a second label: camera, style, font. Pairs of one class and one group are left out. Default
            None.
        pairs: Which pairs to compare, as `read_pairs` reads a published list. Default None: by the labels.
        fars: False-accept rates to report at. Default 1e-1, 1e-2, …, 1e-6.
        max_pairs: Of each kind. Default 2 million.
        resamples: Of the bootstrap. Default 200; 0 leaves the intervals out.
        seed: Of sample and bootstrap. Default 0.

    Returns:
        A `VerificationReport`.

    Raises:
        ValueError: If the vectors or labels do not fit, or there is no pair of one class, or none of two.

    Example:
        >>> report = verification([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], [0, 0, 1, 1])
        >>> report.auc, report.eer, report.genuine, report.impostor
        (1.0, 0.0, 2, 4)

    Reference:
        ISO/IEC 19795-1; Bolle, Ratha, Pankanti: Error analysis of pattern recognition systems: the subsets bootstrap.
        Computer Vision and Image Understanding 93, 2004.
    """
    unit, _ = inputs.unit_rows(embeddings, "embeddings")
    max_pairs, resamples = checks.integer("max_pairs", max_pairs, 1), checks.integer("resamples", resamples)
    seed = checks.integer("seed", seed)
    fars = tuple(sorted((checks.within("fars", far, 0, 1, "(]") for far in fars), reverse=True))
    if labels is None and pairs is None:
        raise ValueError("`labels` is missing: give the class of each vector, or `pairs`.")
    labels = np.arange(len(unit)) if labels is None else inputs.one_each(labels, len(unit), "labels", "embeddings")
    _, classes = np.unique(labels, return_inverse=True)
    notes: list[str] = []
    if pairs is None:
        pairs, notes = _drawn(classes, groups, max_pairs, seed)
    for same, kind in ((True, "of one class"), (False, "of two classes")):
        if not (pairs.same == same).any():
            raise ValueError(f"There is no pair {kind} to compare: {_why(same, groups)}")
    scores = pairs.scores(unit)
    weights = np.ones(len(pairs)) if pairs.weights is None else pairs.weights
    counts = int(pairs.same.sum()), int((~pairs.same).sum())
    stated = [far for far in fars if counts[1] * far >= LEAST_ERRORS]
    if len(stated) < len(fars):
        missing = ", ".join(f"{far:g}" for far in fars if far not in stated)
        notes.append(
            f"No rate is stated at FAR {missing}: {counts[1]:,} pairs of two classes state "
            f"{LEAST_ERRORS / counts[1]:.1g} "
            "or more (ten false accepts)."
        )
    curve = _curve(scores, pairs.same, weights)
    found = _metrics(curve, stated)
    spans = {}
    if resamples:
        ends = classes[pairs.first], classes[pairs.second]
        spans = bootstrap(
            lambda drawn: _metrics(
                _curve(scores, pairs.same, weights * drawn[ends[0]] * np.where(pairs.same, 1, drawn[ends[1]])), stated
            ),
            classes.max() + 1,
            resamples,
            seed,
        )
    return VerificationReport(
        auc=found["auc"],
        eer=found["eer"],
        rates={far: Rate(far, curve.at_far(far)[0], found[far], spans.get(far)) for far in stated},
        intervals={name: spans[name] for name in ("auc", "eer") if name in spans},
        genuine=counts[0],
        impostor=counts[1],
        of=counts if pairs.of == (0, 0) else pairs.of,
        classes=len(np.unique(classes)),
        accuracy=_accuracy(scores, pairs),
        notes=tuple(notes),
        curve=curve,
        scores={"genuine": scores[pairs.same], "impostor": scores[~pairs.same]},
    )


def _drawn(classes: np.ndarray, groups: ArrayLike | None, most: int, seed: int) -> tuple[pair_lists.Pairs, list[str]]:
    notes, codes = [], None
    if groups is not None:
        groups = inputs.one_each(groups, len(classes), "groups", "embeddings")
        _, codes = np.unique(groups, return_inverse=True)
    if (single := int((np.bincount(classes) == 1).sum())) > 0:
        notes.append(f"{single:,} classes of one image have no pair of their class; their images are in pairs of two.")
    if classes.max() == 0:
        raise ValueError("`labels` holds one class: there is no pair of two classes. Give at least two.")
    return pair_lists.draw(classes, codes, most, seed), notes


def _why(same: bool, groups: ArrayLike | None) -> str:
    if not same:
        return "give at least two classes."
    return "every class has one image" + ("." if groups is None else ", or one group.")


def _curve(scores: np.ndarray, same: np.ndarray, weights: np.ndarray) -> curves.Roc:
    return curves.roc(scores[same], scores[~same], weights[same], weights[~same])


def _metrics(curve: curves.Roc, fars: Sequence[float]) -> dict[object, float]:
    return {"auc": curve.auc, "eer": curve.eer} | {far: curve.at_far(far)[1] for far in fars}


def bootstrap(
    measure: Callable[[np.ndarray], Mapping[Any, float]], classes: int, resamples: int, seed: int
) -> dict[Any, tuple[float, float]]:
    """Return 95 % intervals of numbers by drawing classes with replacement.

    Args:
        measure: From how often each class was drawn, (C,), to the numbers by name; NaN where one is not defined.
        classes: C.
        resamples: How often to draw.
        seed: Of the draws.

    Returns:
        Name to interval; empty with fewer than two classes.
    """
    if classes < 2:
        return {}
    rng = np.random.default_rng(seed)
    found: dict[Any, list[float]] = {}
    for drawn in rng.multinomial(classes, np.full(classes, 1 / classes), size=resamples):
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, value in measure(drawn.astype(np.float64)).items():
                found.setdefault(name, []).append(value)
    return {name: intervals.central(np.asarray(values)) for name, values in found.items()}


def _accuracy(scores: np.ndarray, pairs: pair_lists.Pairs) -> tuple[float, float] | None:
    """Return the mean accuracy over folds with the best threshold on the other folds, and its standard error."""
    if pairs.folds is None:
        return None
    found = []
    for fold in np.unique(pairs.folds):
        held = pairs.folds == fold
        curve = curves.roc(scores[~held & pairs.same], scores[~held & ~pairs.same])
        share = pairs.same[~held].mean()
        threshold = curve.thresholds[np.argmax(share * curve.tar + (1 - share) * (1 - curve.far))]
        found.append(float(((scores[held] >= threshold) == pairs.same[held]).mean()))
    return float(np.mean(found)), float(np.std(found, ddof=1) / len(found) ** 0.5)


def span(interval: tuple[float, float] | None) -> str:
    """Write an interval in percent.

    Example:
        >>> span((0.1, 0.25))
        '10.00 – 25.00'
    """
    return "" if interval is None else f"{100 * interval[0]:.2f} – {100 * interval[1]:.2f}"

"""Which of the evaluated classes were trained on, and what retrieval is worth on them and on the others."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tf_detreg.retrieval import inputs
from tf_detreg.retrieval.evaluate import evaluate
from tf_detreg.retrieval.report import RetrievalReport


@dataclasses.dataclass(frozen=True)
class TrainedClasses:
    """How far the classes of an evaluation are those of training.

    Retrieval on classes that were trained on says nothing of new ones, so each part is measured by itself as well: its
    queries are searched for among the images of the part alone.

    Args:
        classes: Number of classes that were evaluated.
        trained: How many of them were trained on.
        reports: `"seen"` and `"unseen"` to their reports, if there are classes of both kinds and a part has two images
            of any class; else empty.
    """

    classes: int
    trained: int
    reports: Mapping[str, RetrievalReport] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the entries that `evaluation.json` has beside those of the report on all classes."""
        parts = {name: report.to_dict() for name, report in self.reports.items()}
        return {"trained_classes": self.trained, **parts}

    def note(self) -> str:
        """Return a sentence for a report, with the recall of each part."""
        text = sentence(self.trained, self.classes)
        for name, report in self.reports.items():
            rank, value = min(report.recall.items())
            text += f" {PARTS[name]} ({report.classes:,}) by themselves: R@{rank} {100 * value:.2f} %"
            text += f", MAP@R {100 * report.map_at_r:.2f} %." if "map@r" in report.metrics else "."
        return text


PARTS = {"seen": "Classes trained on", "unseen": "Classes not trained on"}


def sentence(trained: int, classes: int) -> str:
    """Say how many of the evaluated classes were trained on.

    Example:
        >>> print(sentence(0, 30), sentence(12, 30), sep="\\n")
        None of the 30 classes was trained on.
        12 of the 30 classes were trained on.
    """
    if trained == 0:
        return f"None of the {classes:,} classes was trained on."
    if trained == classes:
        return f"All {classes:,} classes were trained on: this says nothing of classes that training never saw."
    return f"{trained:,} of the {classes:,} classes {'was' if trained == 1 else 'were'} trained on."


def titled(evaluation: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the reports of an `evaluation.json` by their titles, those of the parts of a set behind the set's.

    Example:
        >>> list(titled({"validation": {}, "test": {"seen": {}, "unseen": {}}}))
        ['test classes', 'test classes trained on', 'test classes not trained on', 'validation classes']
    """
    reports = {}
    for name in ("test", "validation"):
        if name in evaluation:
            reports[f"{name} classes"] = evaluation[name]
            for part, suffix in (("seen", "trained on"), ("unseen", "not trained on")):
                if part in evaluation[name]:
                    reports[f"{name} classes {suffix}"] = evaluation[name][part]
    return reports


def is_trained(class_names: Sequence[str], trained_on: Collection[str]) -> np.ndarray:
    """Return for each class whether training had a class of its name.

    Args:
        class_names: C names.
        trained_on: Names of the training classes.

    Returns:
        bool `(C,)`.

    Example:
        >>> is_trained(["ant", "bee"], ["bee", "cat"]).tolist()
        [False, True]
    """
    known = frozenset(trained_on)
    return np.array([name in known for name in class_names], bool)


def by_training(
    embeddings: np.ndarray,
    labels: np.ndarray,
    trained: np.ndarray,
    *,
    gallery: np.ndarray | None = None,
    gallery_labels: np.ndarray | None = None,
    k: Sequence[int] = (1, 2, 4, 8),
    **options: Any,
) -> TrainedClasses:
    """Measure classes that were trained on and the others apart.

    Args:
        embeddings: `(Q, dim)`.
        labels: Class numbers `(Q,)`.
        trained: bool `(C,)`, as `is_trained` returns it.
        gallery: `(N, dim)`. Default: the queries are searched for among themselves.
        gallery_labels: `(N,)`.
        k: Ranks of the recall; those beyond the size of a part are left out.
        **options: Of `evaluate`.

    Example:
        >>> rows = [[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]]
        >>> found = by_training(rows, [0, 0, 1, 1], np.array([True, False]), k=(1,), resamples=0)
        >>> found.trained, found.classes, sorted(found.reports)
        (1, 2, ['seen', 'unseen'])
    """
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    present = np.unique(labels)
    counted = int(trained[present].sum())
    reports = {}
    if 0 < counted < len(present):
        for name, wanted in (("seen", True), ("unseen", False)):
            rows = trained[labels] == wanted
            there: dict[str, Any] = {}
            size = int(rows.sum()) - 1
            among = labels[rows]
            if gallery is not None:
                beside = trained[np.asarray(gallery_labels)] == wanted
                among = np.asarray(gallery_labels)[beside]
                there, size = {"gallery": np.asarray(gallery)[beside], "gallery_labels": among}, len(among)
            # Without a relevant item for any query there is nothing to measure.
            if gallery is None and (not len(among) or np.bincount(among).max() < 2):
                continue
            if gallery is not None and not np.isin(labels[rows], among).any():
                continue
            ranks = inputs.ranks_within(k, size)
            reports[name] = evaluate(embeddings[rows], labels[rows], **there, k=ranks, **options)
    return TrainedClasses(len(present), counted, reports)

"""Trials of identification: every query once with its class in the gallery, and once without.

Classes are dealt into folds. For each fold its classes leave the gallery, so that their images are queries of unknown
classes; images of the next fold are known queries, which do not find themselves. Every image is so an unknown and a
known query once, always against a gallery of the same size but for one fold.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg.retrieval import exact, inputs

SCORES = ("nearest", "margin", "mean", "normalized", "density")
DEPTH = 32  # neighbors that the scores look at, at most
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Trials:
    """Scores of all queries, as known and as unknown ones.

    Args:
        known: Score name to (Q,), with the query's class in the gallery.
        right: (Q,) whether the nearest item is then of the query's class.
        unknown: Score name to (Q,), with the query's class held out.
        classes: (Q,) class of each query, integers from 0.
        has_positive: (Q,) whether the class has another image, without which a query cannot be a known one.
        gallery: Mean number of items in the galleries.
        gallery_classes: Mean number of classes in the galleries.
        confused: (Q,) class of the nearest item when the query's class is held out.
    """

    known: dict[str, np.ndarray]
    right: np.ndarray
    unknown: dict[str, np.ndarray]
    classes: np.ndarray
    has_positive: np.ndarray
    gallery: int
    gallery_classes: int
    confused: np.ndarray


def run(
    embeddings: np.ndarray,
    classes: np.ndarray,
    scores: Sequence[str] = ("nearest",),
    neighbors: int = 5,
    density: Callable[[np.ndarray], np.ndarray] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    progress: bool | None = False,
) -> Trials:
    """Search every query with and without its class in the gallery.

    Args:
        embeddings: (N, dim) float32 unit rows.
        classes: (N,) integers from 0.
        scores: Which of `SCORES`.
        neighbors: k of `"mean"` and `"normalized"`. Default 5.
        density: For `"density"`: from the rows of a gallery to the log-densities (N,) of all vectors, such as a
            `FlowDensity`. Default None.
        folds: Default 5.
        seed: Of dealing classes into folds. Default 0.
        progress: Whether to show a progress bar; None shows it in a terminal. Default False.

    Raises:
        ValueError: If there are fewer than two classes, or a score is unknown or lacks its `density`.
    """
    for name in scores:
        if name not in SCORES:
            raise ValueError(f"`score` must be one of {', '.join(map(repr, SCORES))}; received {name!r}.")
    if "density" in scores and density is None:
        raise ValueError("`score`='density' needs `density`, such as `retrieval.FlowDensity.of(embedder, images)`.")
    count = int(classes.max()) + 1
    if count < 2:
        raise ValueError("`labels` holds one class: a query of an unknown class needs a gallery of others. Give two.")
    folds = min(folds, count)
    dealt = np.empty(count, np.int64)
    dealt[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    fold = dealt[classes]
    table = {kind: {name: np.empty(len(classes)) for name in scores} for kind in ("known", "unknown")}
    right, confused = np.zeros(len(classes), bool), np.empty(len(classes), np.int64)
    sizes = []
    for held in range(folds):
        gallery = np.flatnonzero(fold != held)
        sizes.append((len(gallery), len(np.unique(classes[gallery]))))
        likely = _densities(density, gallery, len(embeddings)) if density and "density" in scores else None
        hubs = _neighborhood(embeddings[gallery], classes[gallery], neighbors) if "normalized" in scores else None
        for kind, rows in (("unknown", fold == held), ("known", fold == (held + 1) % folds)):
            rows = np.flatnonzero(rows)
            own = np.searchsorted(gallery, rows) if kind == "known" else np.full(len(rows), -1)
            depth = min(DEPTH, len(gallery) - 1)
            ids, cosines = exact.search(
                np.ascontiguousarray(embeddings[rows]), np.ascontiguousarray(embeddings[gallery]), depth, own, progress
            )
            found = query_scores(cosines, classes[gallery][ids], scores, neighbors, None if hubs is None else hubs[ids])
            for name, values in found.items():
                table[kind][name][rows] = values
            if likely is not None:
                table[kind]["density"][rows] = likely[rows]
            first = classes[gallery][ids[:, 0]]
            if kind == "known":
                right[rows] = first == classes[rows]
            else:
                confused[rows] = first
    means = np.mean(sizes, axis=0).round().astype(int)
    positive = np.bincount(classes)[classes] > 1
    return Trials(table["known"], right, table["unknown"], classes, positive, int(means[0]), int(means[1]), confused)


def query_scores(
    cosines: np.ndarray,
    labels: np.ndarray,
    scores: Sequence[str],
    neighbors: int = 5,
    hubs: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return how much each query looks like one of a class in the gallery, larger is more.

    Args:
        cosines: (Q, K) of the nearest items, best first.
        labels: (Q, K) their classes.
        scores: Which of `SCORES`; `"density"` is passed over: it does not look at the gallery.
        neighbors: k of `"mean"`. Default 5.
        hubs: (Q, K) mean cosine of each item to its nearest items of other classes, for `"normalized"`.

    Returns:
        Name to (Q,): `"nearest"`, the cosine s₁ of the nearest item; `"margin"`, s₁ minus the cosine of the nearest
        item of another class than that one's (of the last item listed, where all are of one class); `"mean"`, the
        mean of the k best cosines; `"normalized"`, the largest s − hub.

    Example:
        >>> query_scores(np.array([[0.9, 0.8, 0.5]]), np.array([["a", "a", "b"]]), ("nearest", "margin"))
        {'nearest': array([0.9]), 'margin': array([0.4])}
    """
    found = {}
    if "nearest" in scores:
        found["nearest"] = cosines[:, 0].astype(np.float64)
    if "margin" in scores:
        other = labels != labels[:, :1]
        second = np.where(other.any(axis=1), other.argmax(axis=1), cosines.shape[1] - 1)
        found["margin"] = cosines[:, 0].astype(np.float64) - cosines[np.arange(len(cosines)), second]
    if "mean" in scores:
        found["mean"] = cosines[:, :neighbors].mean(axis=1, dtype=np.float64)
    if "normalized" in scores:
        found["normalized"] = (cosines - hubs).max(axis=1).astype(np.float64)
    return found


def _densities(density: Callable[[np.ndarray], np.ndarray], gallery: np.ndarray, count: int) -> np.ndarray:
    found = np.asarray(density(gallery), np.float64)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"`density` must give a finite number for each of {count} vectors; received {found.shape}.")
    return found


def _neighborhood(gallery: np.ndarray, classes: np.ndarray, neighbors: int) -> np.ndarray:
    """Return (N,) mean cosine of each item to its nearest items of other classes."""
    depth = min(len(gallery) - 1, int(np.bincount(classes).max()) - 1 + neighbors)
    ids, cosines = exact.search(gallery, gallery, depth, np.arange(len(gallery)), False)
    other = classes[ids] != classes[:, None]
    kept = other & (np.cumsum(other, axis=1) <= neighbors)
    return np.asarray((cosines * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1))


def checked(
    embeddings: ArrayLike, labels: ArrayLike, name: str = "embeddings", of: str = "labels"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit rows, class numbers from 0 and the sorted labels that they stand for."""
    unit, _ = inputs.unit_rows(embeddings, name)
    labels = inputs.one_each(labels, len(unit), of, name)
    names, classes = np.unique(labels, return_inverse=True)
    return unit, classes, names

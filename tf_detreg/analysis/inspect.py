"""What goes wrong in retrieval, and why: hard queries, confused classes, hubs and duplicates.

Each finding has its numbers as a table and its pictures as a fragment for the HTML report.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.analysis import neighbors, report

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


DUPLICATE = 0.9999  # cosine from which two images are taken for copies of each other


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an inspection found; all items are row numbers, all lists are the worst first.

    Args:
        hardest: (h,) queries whose first relevant item is farthest down.
        first_rank: (h,) at which rank it stands, at most `k` + 1, which means "not among the k nearest".
        confused: (c, 3) class, class that was found in its place, how often among the nearest neighbors.
        hubs: (b,) items that are among the k nearest of unusually many others.
        occurrences: (b,) among how many.
        skewness: Of the number of occurrences; near 0 without hubs, above 1 with clear ones.
        duplicates: (d, 2) pairs of items with nearly the same embedding.
        across: (d,) whether the two carry different labels: probably a wrong label, or copies in two folders.
        k: Neighbors that were looked at.
    """

    hardest: np.ndarray
    first_rank: np.ndarray
    confused: np.ndarray
    hubs: np.ndarray
    occurrences: np.ndarray
    skewness: float
    duplicates: np.ndarray
    across: np.ndarray
    k: int


def inspect(
    embeddings: ArrayLike, labels: ArrayLike, k: int = 10, show: int = 8, duplicate: float = DUPLICATE
) -> Findings:
    """Look for what stands behind the numbers of a leave-one-out evaluation.

    Args:
        embeddings: (N, dim).
        labels: (N,) integers from 0.
        k: Neighbors to look at. Default 10; fewer when there are fewer items.
        show: How many of each finding to keep. Default 8.
        duplicate: Cosine from which two items are copies. Default 0.9999.

    Returns:
        `Findings`.

    Raises:
        ValueError: If embeddings or labels do not fit.

    Example:
        >>> found = inspect([[1, 0], [1, 0], [0, 1], [0.1, 1], [0.6, 0.8]], [0, 0, 1, 1, 0], k=2)
        >>> found.hardest[0].item(), found.duplicates.tolist()
        (4, [[0, 1]])

    Reference:
        Radovanović, Nanopoulos, Ivanović: Hubs in space. JMLR 2010.
    """
    from tf_detreg import retrieval
    from tf_detreg.retrieval import inputs

    labels = inputs.one_each(labels, len(np.asarray(embeddings)), "labels", "embeddings")
    if len(labels) < 2:
        raise checks.invalid("embeddings", "hold two rows or more, so that one has a neighbor", f"{len(labels)}")
    k = min(k, len(labels) - 1)
    ids, scores = retrieval.search(embeddings, k=k)
    right = labels[ids] == labels[:, None]
    first = _first_right(right, labels)
    hardest = _hardest(first, scores)[:show]
    occurrences = np.bincount(ids.ravel(), minlength=len(labels))
    hubs = _hubs(occurrences, k)[:show]
    copies, across = _duplicates(ids, scores, labels, duplicate)
    return Findings(
        hardest=hardest,
        first_rank=first[hardest],
        confused=_confused(labels, labels[ids[:, 0]])[:show],
        hubs=hubs,
        occurrences=occurrences[hubs],
        skewness=_skewness(occurrences),
        duplicates=copies,
        across=across,
        k=k,
    )


def _first_right(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (N,) rank of each query's first relevant item, k + 1 beyond k; 0 for queries without positives."""
    first = np.where(right.any(axis=1), right.argmax(axis=1) + 1, right.shape[1] + 1)
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.where(sizes[place] > 1, first, 0)


def _hardest(first: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return queries with another class first; of equal ranks, who trusts its wrong neighbor more."""
    order = np.lexsort((-scores[:, 0], -first))
    return order[first[order] > 1]


def _confused(labels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Return (c, 3): class, class of the nearest neighbor in its place, how often."""
    wrong = labels != nearest
    pairs, times = np.unique(np.stack([labels[wrong], nearest[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return np.concatenate([pairs[order], times[order, None]], axis=1)


def _hubs(occurrences: np.ndarray, k: int) -> np.ndarray:
    """Return items that are neighbors of more than three standard deviations above the mean, which is k."""
    order = np.argsort(-occurrences, kind="stable")
    result: np.ndarray = order[occurrences[order] > k + 3 * occurrences.std()]
    return result


def _skewness(occurrences: np.ndarray) -> float:
    spread = occurrences.std()
    return float(((occurrences - occurrences.mean()) ** 3).mean() / spread**3) if spread else 0.0


def _duplicates(ids: np.ndarray, scores: np.ndarray, labels: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs whose cosine reaches the limit, and whether their labels differ, those first."""
    query, place = np.nonzero(scores >= limit)
    copies = np.unique(np.sort(np.stack([query, ids[query, place]], axis=1), axis=1), axis=0)
    across = labels[copies[:, 0]] != labels[copies[:, 1]]
    worst = np.argsort(~across, kind="stable")
    return copies[worst], across[worst]


def sections(image_set: "ImageSet", embeddings: ArrayLike, k: int = 10, show: int = 6) -> list[report.Section]:
    """Return the findings with thumbnails, as sections of the HTML report (which needs `neighbors.STYLE`).

    Args:
        image_set: `datasets.ImageSet`.
        embeddings: (N, dim), a row an image.
        k: Neighbors to look at. Default 10.
        show: How many of each finding to show. Default 6.
    """
    found = inspect(embeddings, image_set.labels, k, show)
    names = np.asarray(image_set.class_names, object)
    item_names = names[image_set.labels]
    rows = np.asarray(embeddings)
    hard = "<p>Every query finds its class first.</p>"
    if len(found.hardest):
        hard = neighbors.within(image_set, rows, found.hardest, min(8, found.k)).to_html()
    confused = "<p>No class is taken for another one.</p>"
    if len(found.confused):
        confused = report.table([_pair(image_set, names, *row) for row in found.confused])
        confused += _strips(image_set, names, found.confused[:, :2])
    hubs = "<p>No item is among the neighbors of unusually many others.</p>"
    if len(found.hubs):
        notes = [f"near {count} others" for count in found.occurrences]
        hubs = _row(image_set, found.hubs, item_names[found.hubs], notes)
    copies = "<p>No two images have nearly the same embedding.</p>"
    if len(found.duplicates):
        notes = [("different labels" if other else "one label") for other in found.across[:show]]
        copies = "".join(
            _row(image_set, pair, item_names[pair], [note] * 2)
            for pair, note in zip(found.duplicates[:show], notes, strict=True)
        )
    crossing = int(found.across.sum())
    return [
        report.Section("Hardest queries", "Their own class stands farthest down the list.", hard),
        report.Section("Confused classes", "The nearest neighbor came from the second class.", confused),
        report.Section(
            "Hubs",
            f"Items that are everyone's neighbor. Skewness of the occurrences: {found.skewness:.2f} (above 1: hubs).",
            hubs,
        ),
        report.Section(
            "Duplicates",
            f"{len(found.duplicates):,} pairs of images with nearly the same embedding, {crossing:,} of them under two "
            "different labels: look there for wrong labels.",
            copies,
        ),
    ]


def _pair(image_set: "ImageSet", names: np.ndarray, query: int, found: int, times: int) -> dict[str, object]:
    images = int((image_set.labels == query).sum())
    return {"class": names[query], "taken for": names[found], "images": images, "mistaken": int(times)}


def _strips(image_set: "ImageSet", names: np.ndarray, pairs: np.ndarray) -> str:
    """Return the first three images of both classes, side by side."""
    strips = []
    for pair in pairs:
        rows = np.concatenate([np.flatnonzero(image_set.labels == label)[:3] for label in pair])
        strips.append(_row(image_set, rows, names[image_set.labels[rows]], [""] * len(rows)))
    return "".join(strips)


def _row(image_set: "ImageSet", rows: np.ndarray, names: np.ndarray, notes: list[str]) -> str:
    pictures = neighbors.pixels(image_set, rows)
    tiles = [
        neighbors.thumbnail(picture, "unknown", str(name), note)
        for picture, name, note in zip(pictures, names, notes, strict=True)
    ]
    return f'<div class="neighbors"><div class="row">{"".join(tiles)}</div></div>'

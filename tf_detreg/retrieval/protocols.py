"""Who may find whom: the three protocols as one table of same-class pairs.

Everything that a protocol decides concerns items of the query's own class: which of them count as relevant, and
which leave the gallery. All other items are wrong answers, always. So a protocol is the list of same-class items of a
query, each marked as kept or left out.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg.retrieval import inputs

PROTOCOLS = ("leave-one-out", "query-gallery", "cross-group")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol, applied to data.

    Args:
        name: One of `leave-one-out`, `query-gallery`, `cross-group`.
        classes: The sorted values of the labels of queries and gallery.
        query_class: (Q,) index into `classes`.
        members: Gallery indices, sorted by class.
        starts: (C + 1,) where each class begins in `members`.
        searches_itself: The queries are the gallery: query i never finds item i.
        query_groups: (Q,) or None; in `cross-group` items of the same class *and* group leave the gallery.
        gallery_groups: (N,) or None.
    """

    name: str
    classes: np.ndarray
    query_class: np.ndarray
    members: np.ndarray
    starts: np.ndarray
    searches_itself: bool
    query_groups: np.ndarray | None
    gallery_groups: np.ndarray | None

    @property
    def largest_class(self) -> int:
        return int(np.diff(self.starts).max())

    @functools.cached_property
    def gallery_class(self) -> np.ndarray:
        """Return (N,) index into `classes`."""
        classes = np.empty(len(self.members), np.int64)
        classes[self.members] = np.repeat(np.arange(len(self.classes)), np.diff(self.starts))
        return classes

    def share_group(self, items: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Return whether items are of their queries' groups, under the protocol that leaves them out; else False."""
        if self.query_groups is None or self.gallery_groups is None or self.name != "cross-group":
            return np.zeros(np.broadcast_shapes(items.shape, queries.shape), bool)
        result: np.ndarray = self.gallery_groups[items] == self.query_groups[queries]
        return result

    def left_out(self) -> np.ndarray:
        """Return (Q,) how many items of its own class leave each query's gallery."""
        if self.query_groups is None or self.gallery_groups is None or self.name != "cross-group":
            return np.full(len(self.query_class), int(self.searches_itself))
        count = max(self.query_groups.max(), self.gallery_groups.max()) + 1
        kinds, sizes = np.unique(self.gallery_class * count + self.gallery_groups, return_counts=True)
        wanted = self.query_class * count + self.query_groups
        place = np.minimum(np.searchsorted(kinds, wanted), len(kinds) - 1)
        return np.where(kinds[place] == wanted, sizes[place], 0)

    def relevant(self) -> np.ndarray:
        """Return (Q,) how many relevant items each query has."""
        result: np.ndarray = np.diff(self.starts)[self.query_class] - self.left_out()
        return result

    def same_class(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all same-class pairs of some queries.

        Args:
            rows: (b,) indices of queries.

        Returns:
            (position in `rows`, gallery index, kept), three vectors of one length, sorted by position.
        """
        code = self.query_class[rows]
        sizes = self.starts[code + 1] - self.starts[code]
        position = np.repeat(np.arange(len(rows)), sizes)
        first = np.cumsum(sizes) - sizes
        item = self.members[np.arange(len(position)) + np.repeat(self.starts[code] - first, sizes)]
        kept = np.ones(len(item), bool)
        if self.searches_itself:
            kept &= item != rows[position]
        kept &= ~self.share_group(item, rows[position])
        return position, item, kept


def choose(
    labels: np.ndarray,
    gallery_labels: np.ndarray | None,
    groups: np.ndarray | None,
    gallery_groups: np.ndarray | None,
    name: str = "auto",
) -> Protocol:
    """Choose and check a protocol.

    Args:
        labels: (Q,) of the queries.
        gallery_labels: (N,), or None: the queries search among themselves.
        groups: (Q,) a second label (camera, style, font), or None.
        gallery_groups: (N,) or None.
        name: Default `"auto"`: `cross-group` when groups are given, else `query-gallery` when a gallery is given,
            else `leave-one-out`.

    Raises:
        ValueError: If the name is unknown or does not fit what was given.
    """
    itself = gallery_labels is None
    if name == "auto":
        name = "cross-group" if groups is not None else "leave-one-out" if itself else "query-gallery"
    if name not in PROTOCOLS:
        raise ValueError(f"`protocol` must be 'auto' or one of {', '.join(PROTOCOLS)}; received {name!r}.")
    if name == "leave-one-out" and not itself:
        raise ValueError("`protocol`='leave-one-out' searches the queries themselves: leave `gallery` out.")
    if name == "query-gallery" and itself:
        raise ValueError("`protocol`='query-gallery' needs `gallery` and `gallery_labels`.")
    if name == "cross-group" and (groups is None or (gallery_groups is None and not itself)):
        raise ValueError("`protocol`='cross-group' needs `groups`, and `gallery_groups` when there is a gallery.")
    if groups is not None and itself:
        gallery_groups = groups
    elif gallery_groups is not None and groups is None:
        raise ValueError("`gallery_groups` came without `groups`: give both or neither.")
    if groups is not None and gallery_groups is not None:
        _, both = np.unique(np.concatenate([groups, gallery_groups]), return_inverse=True)
        groups, gallery_groups = both[: len(groups)], both[len(groups) :]
    classes, codes = np.unique(labels if itself else np.concatenate([labels, gallery_labels]), return_inverse=True)
    query_class, gallery_class = codes[: len(labels)], codes if itself else codes[len(labels) :]
    return Protocol(
        name=name,
        classes=classes,
        query_class=query_class,
        members=np.argsort(gallery_class, kind="stable"),
        starts=np.concatenate([[0], np.cumsum(np.bincount(gallery_class, minlength=len(classes)))]),
        searches_itself=itself,
        query_groups=groups,
        gallery_groups=gallery_groups,
    )


def checked(
    queries: ArrayLike,
    labels: ArrayLike,
    gallery: ArrayLike | None,
    gallery_labels: ArrayLike | None,
    groups: ArrayLike | None,
    gallery_groups: ArrayLike | None,
) -> tuple[Any, ...]:
    """Return the input of `evaluate`, checked: unit vectors, labels and groups that fit, and notes on what was done.

    Returns:
        (queries, labels, gallery, gallery_labels, groups, gallery_groups, notes); `gallery` is None when the queries
        search among themselves.

    Raises:
        ValueError: If anything does not fit; the message names the argument.
    """
    notes: list[str] = []
    queries, changed = inputs.unit_rows(queries, "queries")
    labels = inputs.one_each(labels, len(queries), "labels", "queries")
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("Give both `gallery` and `gallery_labels`, or neither (the queries then search themselves).")
    if gallery is not None and gallery_labels is not None:
        gallery, gallery_changed = inputs.unit_rows(gallery, "gallery")
        inputs.same_width(queries, gallery)
        gallery_labels = inputs.one_each(gallery_labels, len(gallery), "gallery_labels", "gallery")
        inputs.same_kind(labels, gallery_labels, "labels")
        changed = changed or gallery_changed
        if gallery_groups is not None:
            gallery_groups = inputs.one_each(gallery_groups, len(gallery), "gallery_groups", "gallery")
    elif gallery_groups is not None:
        raise ValueError("`gallery_groups` came without `gallery`: `groups` alone is enough for leave-one-out.")
    elif len(queries) < 2:
        raise ValueError("`queries` holds one vector and there is no `gallery`: there is nothing to find.")
    if groups is not None:
        groups = inputs.one_each(groups, len(queries), "groups", "queries")
        if gallery_groups is not None:
            inputs.same_kind(groups, gallery_groups, "groups")
    if changed:
        notes.append("The vectors were not of length one; they were normalized, so that scores are cosines.")
    return queries, labels, gallery, gallery_labels, groups, gallery_groups, notes

"""The one entrance to evaluation."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.retrieval import clustering, engines, inputs, intervals, protocols, tasks
from tf_detreg.retrieval.report import RetrievalReport


def evaluate(
    queries: ArrayLike,
    labels: ArrayLike,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    gallery_groups: ArrayLike | None = None,
    k: int | Sequence[int] = (1, 2, 4, 8),
    engine: str = "auto",
    metrics: str = "all",
    protocol: str = "auto",
    clusters: bool = False,
    target_recall: float = 0.99,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> RetrievalReport:
    """Measure how well the nearest neighbors of each query are of its own class.

    Scores are cosines. The policy is the same everywhere:

    - *Self* is excluded by its index, never by a distance of zero: an image that is in the gallery twice finds
      its copy.
    - *Ties*: items whose distances to the query differ by at most 1e-6 tie, and an irrelevant item that ties with a
      relevant one stands before it. So a model that maps everything to one point scores 0, not 1, and the order of the
      items cannot change any number. Distances are computed in float64 where float32 cannot tell; where ties decide a
      number, a note says so.
    - *Queries without positives*, without any relevant item in their gallery, are left out of every average, and
      counted.

    Args:
        queries: (Q, dim) embeddings, array or tensor.
        labels: (Q,) classes, integers or strings.
        gallery: (N, dim), or None: the queries search among themselves (leave-one-out).
        gallery_labels: (N,).
        groups: (Q,) a second label: camera, style, font. With it the protocol is cross-group: items of the query's
            class *and* group leave the gallery.
        gallery_groups: (N,).
        k: For R@k and Precision@k. Default (1, 2, 4, 8).
        engine: `"exact"`, `"scann"`, `"usearch"`, or `"auto"`, the default: exact until one of the others that are
            installed, its build included, is expected to be faster at `target_recall`.
        metrics: Default `"all"`. `"recall"` computes R@k and MRR alone, which needs one rank a query.
        protocol: `"auto"`, the default, or `"leave-one-out"`, `"query-gallery"`, `"cross-group"`. With `groups` and one
            of the first two, groups only break the result down.
        clusters: Default False. True adds NMI, AMI and F1 of a k-means clustering with as many clusters as classes.
        target_recall: Default 0.99: the share of true neighbors, at the largest rank needed, that an
            approximate engine is tuned to find.
        resamples: Default 1000, for the bootstrap intervals; 0 leaves them out.
        seed: Of bootstrap, clustering and the sample on which such an engine is tuned. Default 0.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

    Returns:
        A `RetrievalReport`.

    Raises:
        ValueError: If vectors, labels, groups or options do not fit; the message names the argument.

    Example:
        >>> report = evaluate([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], [0, 0, 1, 1], k=1)
        >>> report.recall[1], report.map_at_r, report.engine
        (1.0, 1.0, 'exact')

    Reference:
        Musgrave, Belongie, Lim: A metric learning reality check. ECCV 2020.
    """
    began = time.perf_counter()
    checks.choice("metrics", metrics, ("all", "recall"))
    resamples, seed = checks.integer("resamples", resamples), checks.integer("seed", seed)
    if not isinstance(clusters, bool | np.bool_):
        raise ValueError(f"`clusters` must be True or False; received {clusters!r}.")
    queries, labels, gallery, gallery_labels, groups, gallery_groups, notes = protocols.checked(
        queries, labels, gallery, gallery_labels, groups, gallery_groups
    )
    rules = protocols.choose(labels, gallery_labels, groups, gallery_groups, protocol)
    items = queries if gallery is None else gallery
    ks = inputs.ranks_at(k, len(items) - rules.searches_itself)
    task = tasks.Task(queries, items, rules, ks, metrics, seed, progress)
    found = engines.run(task, engine, target_recall)
    table, notes = found.table.values, [*notes, *found.notes]
    if not table["relevant"].any():
        raise ValueError(
            "No query has a relevant item in its gallery: every class has one image, or `labels` and `gallery_labels` "
            "share no class. There is nothing to measure."
        )
    per_query = {name: values for name, values in table.items() if name not in ("first_rank", "relevant")}
    means = {name: float(np.nanmean(values)) for name, values in per_query.items()}
    if (ties := found.table.ties()) is not None:
        notes.append(ties)
    if clusters:
        agreement, few = clustering.scores(queries, rules.query_class, seed)
        means, notes = means | agreement, [*notes, *few]
    return RetrievalReport(
        metrics=means,
        intervals=_intervals(per_query, rules.query_class, resamples, seed) if resamples else {},
        per_class=_breakdown(per_query, labels),
        per_group={} if groups is None else _breakdown(per_query, groups),
        engine=found.engine,
        protocol=rules.name,
        queries=len(queries),
        queries_without_positives=int((table["relevant"] == 0).sum()),
        gallery=len(items),
        classes=len(np.unique(rules.query_class)),
        dimension=queries.shape[1],
        seconds=time.perf_counter() - began,
        approximation=found.approximation,
        notes=tuple(notes),
        per_query=table,
    )


def _intervals(
    per_query: dict[str, np.ndarray], classes: np.ndarray, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Name to its bootstrap interval, of those that have one."""
    spans = {name: intervals.over_classes(v, classes, resamples, seed) for name, v in per_query.items()}
    return {name: span for name, span in spans.items() if span}


def _breakdown(per_query: dict[str, np.ndarray], keys: np.ndarray) -> dict[Any, dict[str, float]]:
    """Return averages by key; NaN where a key has only queries without positives."""
    names, codes = np.unique(keys, return_inverse=True)
    total = np.bincount(codes)
    columns: dict[str, np.ndarray] = {"queries": total}
    for name, values in per_query.items():
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            columns[name] = np.bincount(codes[known], values[known], len(names)) / np.bincount(
                codes[known], minlength=len(names)
            )
    return {key: {name: column[i].item() for name, column in columns.items()} for i, key in enumerate(names.tolist())}

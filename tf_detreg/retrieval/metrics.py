r"""Metrics of one query, from the ranks of its right answers alone.

Let a query have R right answers in its gallery, at ranks :math:`r_1 < \dots < r_R` (1 is the nearest item). Then

.. math::
    \mathrm{R@}k = [r_1 \le k], \quad
    \mathrm{P@}k = \tfrac1k \#\{j: r_j \le k\}, \quad
    \mathrm{RP} = \tfrac1R \#\{j: r_j \le R\},

    \mathrm{MAP@R} = \tfrac1R \sum_{j: r_j \le R} \tfrac{j}{r_j}, \quad
    \mathrm{AP} = \tfrac1R \sum_j \tfrac{j}{r_j}, \quad
    \mathrm{RR} = \tfrac1{r_1}.

Each function takes the ranks of many queries as a `Ranks` and returns one value a query; a query without any right
answer ("lone") gets NaN and is left out of averages.

Reference:
    Musgrave, Belongie, Lim: A metric learning reality check. ECCV 2020 (R-precision and MAP@R).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Ranks of the right answers of b queries.

    Args:
        query: (n,) which query each rank belongs to, ascending.
        rank: (n,) ranks from 1, ascending within a query.
        relevant: (b,) R, the number of right answers of each query. More than there are ranks when only the first
            ranks are known.

    Example:
        >>> ranks = Ranks.of([[1, 3], [2], []])
        >>> recall(ranks, 1), average_precision_at_r(ranks)
        (array([ 1.,  0., nan]), array([0.5, 0. , nan]))
    """

    query: np.ndarray
    rank: np.ndarray
    relevant: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Ranks":
        """From one list of ranks a query; handy for examples and tests."""
        sizes = np.array([len(ranks) for ranks in lists])
        rank = np.array([rank for ranks in lists for rank in sorted(ranks)], np.int64)
        return cls(np.repeat(np.arange(len(lists)), sizes), rank, sizes)

    @functools.cached_property
    def place(self) -> np.ndarray:
        """(n,) j: each rank is the j-th of its query, from 1."""
        sizes = np.bincount(self.query, minlength=len(self.relevant))
        return np.arange(len(self.query)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1

    @functools.cached_property
    def first(self) -> np.ndarray:
        """(b,) rank of the nearest right answer; infinity where none is known."""
        first = np.full(len(self.relevant), np.inf)
        leading = self.place == 1
        first[self.query[leading]] = self.rank[leading]
        return first

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.query, weights=values, minlength=len(self.relevant))

    def _known(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.relevant > 0, values, np.nan)

    def _per_relevant(self, values: np.ndarray) -> np.ndarray:
        return self._known(self._sum(values) / np.maximum(self.relevant, 1))


def recall(ranks: Ranks, k: int) -> np.ndarray:
    """R@k, (b,): whether a right answer is among the k nearest."""
    return ranks._known((ranks.first <= k).astype(np.float64))


def precision(ranks: Ranks, k: int) -> np.ndarray:
    """Precision@k, (b,): the share of right answers among the k nearest."""
    return ranks._known(ranks._sum((ranks.rank <= k).astype(np.float64)) / k)


def r_precision(ranks: Ranks) -> np.ndarray:
    """R-precision, (b,): the share of right answers among the R nearest."""
    return ranks._per_relevant((ranks.rank <= ranks.relevant[ranks.query]).astype(np.float64))


def average_precision_at_r(ranks: Ranks) -> np.ndarray:
    """The query's part of MAP@R, (b,)."""
    return ranks._per_relevant(np.where(ranks.rank <= ranks.relevant[ranks.query], ranks.place / ranks.rank, 0.0))


def average_precision(ranks: Ranks) -> np.ndarray:
    """The query's part of MAP, (b,)."""
    return ranks._per_relevant(ranks.place / ranks.rank)


def reciprocal_rank(ranks: Ranks) -> np.ndarray:
    """The query's part of MRR, (b,)."""
    return ranks._known(1 / ranks.first)


def names(ks: Sequence[int], what: str = "all") -> tuple[str, ...]:
    """Names of the metrics that `per_query` computes, in order."""
    recalls = tuple(f"recall@{k}" for k in ks)
    if what == "recall":
        return (*recalls, "mrr")
    return (*recalls, "mrr", *(f"precision@{k}" for k in ks), "r_precision", "map@r", "map")


def per_query(ranks: Ranks, ks: Sequence[int], what: str = "all") -> dict[str, np.ndarray]:
    """All metrics at once, name to (b,).

    Args:
        ranks: With all ranks for `what="all"`; the first rank of each query is enough for `what="recall"`.
        ks: For recall and precision.
        what: `"all"`, or `"recall"`: only what follows from the first rank.
    """
    values = {f"recall@{k}": recall(ranks, k) for k in ks}
    values["mrr"] = reciprocal_rank(ranks)
    if what == "all":
        values |= {f"precision@{k}": precision(ranks, k) for k in ks}
        values["r_precision"] = r_precision(ranks)
        values["map@r"] = average_precision_at_r(ranks)
        values["map"] = average_precision(ranks)
    return values

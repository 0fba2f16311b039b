r"""Metrics of one query, from the ranks of its relevant items alone.

Let a query have R relevant items in its gallery, at ranks :math:`r_1 < \dots < r_R` (1 is the nearest item). Then

.. math::
    \mathrm{R@}k = [r_1 \le k], \quad
    \mathrm{P@}k = \tfrac1k \#\{j: r_j \le k\}, \quad
    \mathrm{RP} = \tfrac1R \#\{j: r_j \le R\},

    \mathrm{MAP@R} = \tfrac1R \sum_{j: r_j \le R} \tfrac{j}{r_j}, \quad
    \mathrm{AP} = \tfrac1R \sum_j \tfrac{j}{r_j}, \quad
    \mathrm{RR} = \tfrac1{r_1}.

Each function takes the ranks of many queries as a `Ranks` and returns one value a query; a query without
positives gets NaN and is left out of averages.

Reference:
    Musgrave, Belongie, Lim: A metric learning reality check. ECCV 2020 (R-precision and MAP@R).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Ranks of the relevant items of b queries.

    Args:
        query: (n,) which query each rank belongs to, ascending.
        rank: (n,) ranks from 1, ascending within a query.
        relevant: (b,) R, the number of relevant items of each query. More than there are ranks when only the first
            ranks are known.
        tied: (n,) how many irrelevant items tie with each relevant one, and stand before it. Default None: none.

    Example:
        >>> ranks = Ranks.of([[1, 3], [2], []])
        >>> recall(ranks, 1), average_precision_at_r(ranks)
        (array([ 1.,  0., nan]), array([0.5, 0. , nan]))
    """

    query: np.ndarray
    rank: np.ndarray
    relevant: np.ndarray
    tied: np.ndarray | None = None

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Ranks":
        """Make ranks of one list a query; handy for examples and tests."""
        sizes = np.array([len(ranks) for ranks in lists])
        rank = np.array([rank for ranks in lists for rank in sorted(ranks)], np.int64)
        return cls(np.repeat(np.arange(len(lists)), sizes), rank, sizes)

    @functools.cached_property
    def place(self) -> np.ndarray:
        """Return (n,) j: each rank is the j-th of its query, from 1."""
        sizes = np.bincount(self.query, minlength=len(self.relevant))
        return np.arange(len(self.query)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1

    @functools.cached_property
    def first(self) -> np.ndarray:
        """Return (b,) rank of the nearest relevant item; infinity where none is known."""
        first = np.full(len(self.relevant), np.inf)
        leading = self.place == 1
        first[self.query[leading]] = self.rank[leading]
        return first

    @property
    def won(self) -> "Ranks":
        """Return the ranks if relevant items stood before what ties with them."""
        return self if self.tied is None else Ranks(self.query, self.rank - self.tied, self.relevant)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.query, weights=values, minlength=len(self.relevant))

    def _known(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.relevant > 0, values, np.nan)

    def _per_relevant(self, values: np.ndarray) -> np.ndarray:
        return self._known(self._sum(values) / np.maximum(self.relevant, 1))


def recall(ranks: Ranks, k: int) -> np.ndarray:
    """Return R@k, (b,): whether a relevant item is among the k nearest."""
    return ranks._known((ranks.first <= k).astype(np.float64))


def precision(ranks: Ranks, k: int) -> np.ndarray:
    """Return Precision@k, (b,): the share of relevant items among the k nearest."""
    return ranks._known(ranks._sum((ranks.rank <= k).astype(np.float64)) / k)


def r_precision(ranks: Ranks) -> np.ndarray:
    """Return R-precision, (b,): the share of relevant items among the R nearest."""
    return ranks._per_relevant((ranks.rank <= ranks.relevant[ranks.query]).astype(np.float64))


def average_precision_at_r(ranks: Ranks) -> np.ndarray:
    """Return the query's part of MAP@R, (b,)."""
    return ranks._per_relevant(np.where(ranks.rank <= ranks.relevant[ranks.query], ranks.place / ranks.rank, 0.0))


def average_precision(ranks: Ranks) -> np.ndarray:
    """Return the query's part of MAP, (b,)."""
    return ranks._per_relevant(ranks.place / ranks.rank)


def reciprocal_rank(ranks: Ranks) -> np.ndarray:
    """Return the query's part of MRR, (b,)."""
    return ranks._known(1 / ranks.first)


def names(ks: Sequence[int], what: str = "all") -> tuple[str, ...]:
    """Return names of the metrics that `per_query` computes, in order."""
    recalls = tuple(f"recall@{k}" for k in ks)
    if what == "recall":
        return (*recalls, "mrr")
    return (*recalls, "mrr", *(f"precision@{k}" for k in ks), "r_precision", "map@r", "map")


def per_query(ranks: Ranks, ks: Sequence[int], what: str = "all") -> dict[str, np.ndarray]:
    """Return all metrics at once, name to (b,).

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


@dataclasses.dataclass(frozen=True)
class Table:
    """The metrics of many queries.

    Args:
        values: Name to (Q,), as `names`, and `"first_rank"`, `"relevant"`.
        won: The same if relevant items stood before what ties with them.
    """

    values: dict[str, np.ndarray]
    won: dict[str, np.ndarray]

    @classmethod
    def empty(cls, count: int, columns: Sequence[str]) -> "Table":
        """Return a table to `fill`."""
        columns = (*columns, "first_rank", "relevant")
        return cls(*({name: np.empty(count) for name in columns} for _ in range(2)))

    def fill(self, rows: np.ndarray | slice, ranks: Ranks, ks: Sequence[int], what: str = "all") -> None:
        """Write the metrics of some queries into the table's columns."""
        for columns, known in ((self.values, ranks), (self.won, ranks.won)):
            found = per_query(known, ks, what) | {"first_rank": known.first, "relevant": known.relevant}
            for name, column in columns.items():
                column[rows] = found[name]

    def put(self, rows: np.ndarray, other: "Table") -> None:
        """Replace some queries by those of a table that has at least these columns."""
        for columns, others in ((self.values, other.values), (self.won, other.won)):
            for name, column in columns.items():
                column[rows] = others[name]

    def ties(self) -> str | None:
        """Say which means are decided by ties, and what they would be otherwise; None if none is."""
        names = [name for name in self.values if name not in ("first_rank", "relevant")]
        touched = np.zeros(len(self.values["relevant"]), bool)
        moved = []
        for name in names:
            differs = ~np.isnan(self.values[name]) & (self.values[name] != self.won[name])
            touched |= differs
            if differs.any():
                lost, won = (100 * np.nanmean(columns[name]) for columns in (self.values, self.won))
                moved.append(f"{name} is {lost:.2f} % and would be {won:.2f} %")
        if not moved:
            return None
        return (
            f"Ties decide numbers of {touched.sum():,} queries: irrelevant items are as near as relevant ones "
            f"(distances within 1e-6) and stand before them. If they stood behind: {', '.join(moved[:3])}."
        )

"""Searches that list candidates by something cheap and score those again by the vectors themselves."""

import abc
import functools
from collections.abc import Callable

import numpy as np

from tf_detreg.progress import ticker
from tf_detreg.retrieval.approximate import ROUNDING

_BYTES = 32 << 20  # of the candidates' vectors that are in memory together
_MOST_QUERIES = 1_024


def cosines(gallery: np.ndarray, queries: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Return (Q, c) the cosines of queries with candidates; minus infinity where one is -1.

    Args:
        gallery: (N, dim) float32 unit rows, on disk perhaps.
        queries: (Q, dim) float32 unit rows.
        listed: (Q, c) items of the gallery, or -1.
    """
    needed, at = np.unique(listed, return_inverse=True)
    # Ascending: a file that is mapped is read from its begin to its end, and each vector once.
    vectors = gallery[np.maximum(needed, 0)][at.reshape(listed.shape)]
    near: np.ndarray = np.matmul(vectors, queries[:, :, None])[:, :, 0]
    near[listed < 0] = -np.inf
    return near


def step(dim: int, count: int) -> int:
    """Return of how many queries the candidates' vectors may be in memory together."""
    return int(np.clip(_BYTES // (4 * dim * count), 1, _MOST_QUERIES))


def best(
    scored: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    queries: np.ndarray,
    k: int,
    own: np.ndarray | None,
    block: int,
    title: str,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (Q, k) and cosines (Q, k) of the best candidates; -1 and minus infinity where there are no more.

    Args:
        scored: Of some queries (B, dim): candidates (B, c) and their cosines (B, c).
        queries: (Q, dim) float32 unit rows.
        k: How many.
        own: (Q,) an item that each query must not find, or None.
        block: Queries at a time.
        title: Of the progress bar.
        progress: Whether to show it; None shows it in a terminal.
    """
    ids = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    with ticker(title, len(queries), progress) as tick:
        for start in range(0, len(queries), block):
            rows = slice(start, start + block)
            listed, near = scored(queries[rows])
            if own is not None:
                near[listed == own[rows, None]] = -np.inf
            order = np.lexsort((listed, -near), axis=1)[:, :k]
            width = order.shape[1]
            ids[rows, :width] = np.take_along_axis(listed, order, axis=1)
            scores[rows, :width] = np.take_along_axis(near, order, axis=1)
            tick(len(listed))
    ids[~np.isfinite(scores)] = -1
    return ids, scores


class Rescoring(abc.ABC):
    """A searcher with one setting: how many candidates of a query are scored again. It tunes itself as a `Tree` does.

    Args:
        gallery: (N, dim) float32 unit rows, which may lie on disk: only candidates are read.
        rescored: Candidates of a query. Default None: all, until `tune` finds how many are needed.
    """

    def __init__(self, gallery: np.ndarray, rescored: int | None = None):
        self.gallery = gallery
        self.size, self.dim = gallery.shape
        self.rescored = rescored or self.size

    @abc.abstractmethod
    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return (Q, count) items that may be near, in any order; -1 where there are no more."""

    @abc.abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what was chosen, for reports."""

    def search(
        self,
        queries: np.ndarray,
        k: int,
        own: np.ndarray | None = None,
        progress: bool | None = False,
        wider: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (Q, k) and cosines (Q, k), best first; an item that was not found is -1, with minus infinity.

        Args:
            queries: (Q, dim) float32 unit rows.
            k: How many.
            own: (Q,) an item that each query must not find. Default: none.
            progress: Whether to show progress; None shows it in a terminal. Default False.
            wider: How many times as many candidates are scored as it was tuned to. Default 1.
        """
        more = min(k + (own is not None), self.size)
        count = min(max(more, round(wider * self.rescored)), self.size)
        scored = functools.partial(self._scored, count=count)
        return best(scored, queries, k, own, step(self.dim, count), "Searching", progress)

    def _scored(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        listed = self.candidates(np.ascontiguousarray(queries), count)
        return listed, cosines(self.gallery, queries, listed)

    def found(self, queries: np.ndarray, k: int, own: np.ndarray | None, kth: np.ndarray) -> np.ndarray:
        """Return (Q,) the share of each query's k true neighbors that a search finds."""
        shares: np.ndarray = (self.search(queries, k, own)[1] >= kth[:, None] - ROUNDING).mean(axis=1)
        return shares

    def tune(self, queries: np.ndarray, k: int, own: np.ndarray | None, kth: np.ndarray, target: float) -> None:
        """Find the fewest candidates that reach a share of the true neighbors on a sample."""

        def reaches(count: int) -> bool:
            self.rescored = min(count, self.size)
            return bool(self.found(queries, k, own, kth).mean() >= target)

        low, high = 0, k + (own is not None)
        while not reaches(high) and high < self.size:
            low, high = high, 2 * high
        while high - low > max(1, high // 8):
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle, high)
        self.rescored = min(high, self.size)

    def widen(self) -> bool:
        """Score an eighth more candidates; False when there are no more."""
        if self.rescored == self.size:
            return False
        self.rescored = min(self.size, self.rescored + -(-self.rescored // 8))
        return True

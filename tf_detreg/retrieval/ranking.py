r"""Ranks of the relevant items of a block of queries, with ties counted against the query.

The rank of a relevant item is :math:`1 + \#\{\text{relevant items before it}\} + \#\{\text{irrelevant items that are
nearer, or tie with it}\}`. Two items tie when their distances to the query, :math:`d = \sqrt{2 - 2 s}` for a cosine
:math:`s`, differ by at most `TIE`. In cosines this is :math:`|s - s'| \le d \cdot 10^{-6}`: near 1e-6 for items far
apart, and far less for vectors that lie close together, where a cosine in float32 tells nothing any more.

Scores in float32 settle almost every comparison. Those that fall within their rounding of a tie are repeated with
float64 cosines of the float32 vectors.
"""

import itertools

import numpy as np

from tf_detreg.retrieval import inputs, metrics

TIE = 1e-6  # of distances: the rounding of a float32 embedder moves unit vectors by about as much

_ROUNDING = 1e-6  # bounds the rounding of the difference of two float32 scores of unit vectors
_COUNT_UP_TO = 40  # relevant items; beyond, sorting the row of scores once is faster than counting for each
_PAIRS = 1 << 24  # numbers of gathered vectors in one step
_GALLERY_ROWS = 8_192


class Vectors:
    """The vectors behind a block of scores, for distances in float64.

    Args:
        queries: (Q, dim) float32 unit rows.
        gallery: (N, dim) float32 unit rows.
    """

    def __init__(self, queries: np.ndarray, gallery: np.ndarray) -> None:
        self.queries, self.gallery = queries, gallery
        self._query_lengths = inputs.lengths(queries)
        self._lengths = self._query_lengths if gallery is queries else inputs.lengths(gallery)
        # How far scores are from cosines, beyond rounding: rows count as of length one up to 1e-5.
        self.rounding = _ROUNDING + sum(float(np.abs(x - 1).max()) for x in (self._query_lengths, self._lengths))

    def pairs(self, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return (n,) distances of n pairs of a query and an item."""
        found = np.empty(len(queries))
        step = max(1, _PAIRS // self.queries.shape[1])
        for start in range(0, len(queries), step):
            one, other = queries[start : start + step], items[start : start + step]
            dots = np.einsum("nd,nd->n", self.queries[one].astype(np.float64), self.gallery[other].astype(np.float64))
            found[start : start + step] = dots / (self._query_lengths[one] * self._lengths[other])
        return distance(found)

    def rows(self, queries: np.ndarray) -> np.ndarray:
        """Return (b, N) distances of b queries to all items."""
        found = np.empty((len(queries), len(self.gallery)))
        unit = self.queries[queries] / self._query_lengths[queries, None]
        for start in range(0, len(self.gallery), _GALLERY_ROWS):
            part = slice(start, start + _GALLERY_ROWS)
            found[:, part] = unit @ self.gallery[part].astype(np.float64).T / self._lengths[part]
        return distance(found)


def distance(cosine: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of unit vectors with this cosine.

    Example:
        >>> distance(np.array([1.0, 0.5, -1.0]))
        array([0., 1., 2.])
    """
    return np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))


class Block:
    """Scores of a block of queries, and the vectors that they are of.

    Args:
        scores: (b, N) float32, or (b, K) of listed items; minus infinity where a list has none.
        queries: (b,) rows of `vectors.queries`.
        vectors: The vectors.
        listed: (b, K) the items of a list; None when column n is item n.
    """

    def __init__(
        self, scores: np.ndarray, queries: np.ndarray, vectors: Vectors, listed: np.ndarray | None = None
    ) -> None:
        self.scores, self.queries, self.vectors, self.listed = scores, queries, vectors, listed

    def items(self) -> np.ndarray:
        """Return the items (b, K) of lists."""
        if self.listed is None:
            raise ValueError("`block` must hold lists; received a column for every item.")
        return self.listed

    def pairs(self, position: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return (n,) distances of the queries at `position` to the items in `column`."""
        items = column if self.listed is None else self.listed[position, column]
        return self.vectors.pairs(self.queries[position], items)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return (p, N) distances of the queries at `positions` to the items of all columns."""
        if self.listed is None:
            return self.vectors.rows(self.queries[positions])
        shape = len(positions), self.scores.shape[1]
        return self.pairs(np.repeat(positions, shape[1]), np.tile(np.arange(shape[1]), shape[0])).reshape(shape)

    def bounds(self, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (n,) below which an item is certainly behind one of score `value`, and from which on nearer."""
        slack = self.vectors.rounding + TIE * distance(np.asarray(value, np.float64) - self.vectors.rounding)
        return (value - slack).astype(np.float32), (value + slack).astype(np.float32)


def positive_ranks(
    block: Block, position: np.ndarray, column: np.ndarray, kept: np.ndarray, first: bool = False
) -> metrics.Ranks:
    """Return ranks of the relevant items of a block of queries.

    Args:
        block: The scores.
        position: (n,) row in the scores of each same-class pair, ascending.
        column: (n,) its column.
        kept: (n,) whether it is relevant; the others have left the gallery.
        first: Default False. True computes only the best rank of each query.

    Returns:
        The ranks, and how many irrelevant items tie with each relevant one.
    """
    count = len(block.scores)
    value = block.scores[position, column]
    order = np.lexsort((-value, position))
    position, column, value, kept = position[order], column[order], value[order], kept[order]
    # One ascending list for all rows: row number times 4 minus the score, which lies within -1..1.
    same_class, begins = 4.0 * position - value, np.searchsorted(position, np.arange(count + 1))
    same_columns = [column[begin:end] for begin, end in itertools.pairwise(begins.tolist())]
    position, column, value = position[kept], column[kept], value[kept]
    relevant = np.bincount(position, minlength=count)
    if first and len(position):
        starts = np.cumsum(relevant) - relevant
        best = value[np.minimum(starts, len(value) - 1)]
        leading = value >= block.bounds(best)[0][position]  # in float64 any of these may be the nearest
        position, column, value = position[leading], column[leading], value[leading]
    low, high = block.bounds(value)
    reaching, ahead = _reaching(block.scores, position, np.stack([low, high])) - [
        np.searchsorted(same_class, 4.0 * position - threshold.astype(np.float64), side="right") - begins[position]
        for threshold in (low, high)
    ]
    tied = np.zeros(len(position), np.int64)
    unsettled = np.flatnonzero(reaching > ahead)
    if len(unsettled):
        more, tied[unsettled] = _settle(
            block, position[unsettled], column[unsettled], low[unsettled], high[unsettled],
            (reaching - ahead)[unsettled], same_columns,
        )  # fmt: skip
        ahead[unsettled] += more
    # Relevant items that float32 put in the wrong order have their counts exchanged: the nearer has the smaller one.
    order = np.lexsort((ahead, position))
    wrong, tied = ahead[order], tied[order]
    if first and len(position):
        _, one = np.unique(position, return_index=True)
        position, wrong, tied = position[one], wrong[one], tied[one]
    ranks = metrics.Ranks(position, wrong, relevant)
    return metrics.Ranks(position, wrong + ranks.place, relevant, tied)


def _settle(
    block: Block,
    position: np.ndarray,
    column: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    between: np.ndarray,
    same_columns: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many irrelevant items scored low..high are nearer than each relevant one or tie, and how many tie.

    Args:
        block: The scores.
        position: (n,) row of each relevant item, ascending.
        column: (n,) its column.
        low: (n,) scores below are behind.
        high: (n,) scores from here on are nearer.
        between: (n,) how many irrelevant items have scores between them.
        same_columns: For each row, the columns of the query's class.
    """
    own = block.pairs(position, column)
    rows, begins = np.unique(position, return_index=True)
    # Gathering vectors for a few pairs is cheap; where many tie, as in a collapsed model, a matrix product is cheaper.
    whole = block.rows(rows) if between.sum() > 4 * block.scores.shape[1] else None
    ahead, tied = np.empty(len(position), np.int64), np.empty(len(position), np.int64)
    for index, (row, begin, end) in enumerate(zip(rows, begins, [*begins[1:], len(position)], strict=True)):
        scores, mine = block.scores[row], slice(begin, end)
        columns = np.flatnonzero((scores >= low[mine].min()) & (scores < high[mine].max()))
        columns = columns[~np.isin(columns, same_columns[row])]
        scores = scores[columns]
        if end - begin > 1:  # the union of several ranges, not what lies between them
            order = np.argsort(low[mine])
            wide = np.maximum.accumulate(high[mine][order])
            last = np.searchsorted(low[mine][order], scores, side="right") - 1
            columns, scores = (values[scores < wide[last]] for values in (columns, scores))
        far = block.pairs(np.full(len(columns), row), columns) if whole is None else whole[index, columns]
        far, scores = np.sort(far), np.sort(scores)
        reached = np.searchsorted(far, own[mine] + TIE, side="right")
        tied[mine] = reached - np.searchsorted(far, own[mine] - TIE, side="left")
        # What scores high or above is in the other count already, and certainly nearer.
        ahead[mine] = reached - (len(scores) - np.searchsorted(scores, high[mine], side="left"))
    return ahead, tied


def ends_within_a_tie(block: Block, position: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return rows of a block of lists whose last item may tie with the first, or with a relevant one.

    What ties with it may go on past the end of such a list.

    Args:
        block: With lists, best first.
        position: (n,) row of each relevant item that is listed.
        column: (n,) its column.
    """
    last = block.scores.min(axis=1)  # minus infinity where the search found no more: nothing was cut off
    ends = np.isfinite(last) & (block.bounds(block.scores[:, 0])[0] <= last)
    low, _ = block.bounds(block.scores[position, column])
    ends[position[np.isfinite(last[position]) & (low <= last[position])]] = True
    return np.flatnonzero(ends)


def _reaching(scores: np.ndarray, position: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return how many scores of its row reach each of the thresholds (t, n).

    Row by row, because NumPy counts the true values of a contiguous vector many times faster than along an axis.
    """
    reaching = np.empty(thresholds.shape, np.int64)
    reaches = np.empty(scores.shape[1], bool)
    bounds = np.searchsorted(position, np.arange(len(scores) + 1)).tolist()
    for row, (begin, end) in zip(scores, itertools.pairwise(bounds), strict=True):
        if end - begin > _COUNT_UP_TO:
            reaching[:, begin:end] = len(row) - np.searchsorted(np.sort(row), thresholds[:, begin:end], side="left")
            continue
        for one in itertools.product(range(len(thresholds)), range(begin, end)):
            np.greater_equal(row, thresholds[one], out=reaches)
            reaching[one] = np.count_nonzero(reaches)
    return reaching

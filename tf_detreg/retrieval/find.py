"""Nearest neighbors without an index."""

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg.retrieval import exact, inputs


def search(
    queries: ArrayLike, gallery: ArrayLike | None = None, k: int = 10, *, progress: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest items of each query, by exact search on cosines.

    Args:
        queries: (Q, dim) vectors, or one vector (dim,).
        gallery: (N, dim) vectors. None searches the queries themselves; a query then never finds its own row.
        k: How many neighbors. Default 10.
        progress: Whether to show a progress bar. None, the default, shows it in a terminal.

    Returns:
        Ids (Q, k) int64, and scores (Q, k) float32, the cosines, best first; equal scores in the gallery's order.

    Raises:
        ValueError: If the vectors are not finite, are zero, or do not fit, or `k` is larger than the gallery.

    Example:
        >>> ids, scores = search([[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.1], [1.0, 1.0]], k=2)
        >>> ids.tolist()
        [[1, 2]]
    """
    queries = np.asarray(queries)
    queries, _ = inputs.unit_rows(queries[None] if queries.ndim == 1 else queries, "queries")
    items = queries if gallery is None else inputs.unit_rows(gallery, "gallery")[0]
    inputs.same_width(queries, items)
    (k,) = inputs.ranks_at(k, len(items) - (gallery is None))
    own = np.arange(len(queries)) if gallery is None else None
    return exact.search(queries, items, k, own, progress)

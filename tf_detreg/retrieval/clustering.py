"""Clustering quality: do k-means clusters of the embeddings agree with the classes?"""

import warnings

import numpy as np

from tf_detreg import extras

_MINI_BATCH_FROM = 20_000


def scores(embeddings: np.ndarray, classes: np.ndarray, seed: int = 0) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return NMI, AMI and pairwise F1 of a k-means clustering with as many clusters as classes.

    Full k-means up to 20,000 vectors, mini-batch k-means beyond.

    Args:
        embeddings: (N, dim) unit rows.
        classes: (N,) integers.
        seed: Of the initial centers.

    Returns:
        `nmi`, `ami`, `f1`, and notes: whether clusters stayed empty, as with fewer different vectors than clusters.

    Raises:
        ValueError: If there is only one class.

    Example:
        >>> scores(np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]]), np.array([0, 0, 1, 1]))
        ({'nmi': 1.0, 'ami': 1.0, 'f1': 1.0}, ())
    """
    with extras.needed("Clustering"):
        from sklearn import cluster
        from sklearn import metrics as agreement
        from sklearn.exceptions import ConvergenceWarning

    count = len(np.unique(classes))
    if count < 2:
        raise ValueError("`clusters`=True needs at least two classes among the queries; there is one.")
    kind = cluster.KMeans if len(embeddings) <= _MINI_BATCH_FROM else cluster.MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # says the same, without a word about the data
        found = kind(count, n_init=1, random_state=seed).fit_predict(embeddings)
    agreed = {
        "nmi": float(agreement.normalized_mutual_info_score(classes, found)),
        "ami": float(agreement.adjusted_mutual_info_score(classes, found)),
        "f1": pairwise_f1(classes, found),
    }
    filled = len(np.unique(found))
    if filled == count:
        return agreed, ()
    note = (
        f"Clustering: k-means filled {filled} of {count} clusters (one a class): many vectors are equal or nearly so."
    )
    return agreed, (note,)


def pairwise_f1(classes: np.ndarray, clusters: np.ndarray) -> float:
    """Return F1 over pairs: a pair is predicted when both lie in one cluster, and true when both are of one class.

    Args:
        classes: (N,) true class of each item.
        clusters: (N,) cluster of each item.

    Example:
        >>> pairwise_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
        0.4
    """
    _, classes = np.unique(classes, return_inverse=True)
    _, clusters = np.unique(clusters, return_inverse=True)
    both = np.unique(classes.astype(np.int64) * (clusters.max() + 1) + clusters, return_counts=True)[1]
    together, same, near = (int((n * (n - 1) // 2).sum()) for n in (both, np.bincount(classes), np.bincount(clusters)))
    return 2 * together / (same + near) if same + near else 1.0

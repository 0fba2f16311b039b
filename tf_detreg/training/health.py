"""Is the embedding alive? Measures that show a collapse without a labeled test set, and a callback that logs them."""

import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


def mean_cosine(embeddings: ArrayLike) -> float:
    """Return the mean cosine similarity of different rows: near 0 for a spread-out set, 1 where all are one point.

    Args:
        embeddings: `(N, dim)`, N of 2 or more.

    Example:

    >>> mean_cosine([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).__round__(3)
    0.333
    """
    z = _unit(embeddings)
    count = len(z)
    norms = np.sum(np.linalg.norm(z, axis=1) ** 2)
    return float((np.sum(np.sum(z, axis=0) ** 2) - norms) / (count * (count - 1)))


def effective_rank(embeddings: ArrayLike) -> float:
    """Return how many directions the embeddings use: `exp(H)`, H the entropy of the covariance's spectrum.

    Between 1 (a line; also where all points coincide) and the smaller of `N - 1` and `dim`.

    Args:
        embeddings: `(N, dim)`.

    Example:

    >>> effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).__round__(3)
    2.0

    Reference: Roy and Vetterli, "The Effective Rank", EUSIPCO 2007.
    """
    z = _unit(embeddings)
    spectrum = np.linalg.svd(z - z.mean(axis=0), compute_uv=False) ** 2
    if spectrum.sum() < 1e-12 * len(z):
        return 1.0
    share = spectrum / spectrum.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def within_between_ratio(labels: ArrayLike, embeddings: ArrayLike) -> float:
    """Spread within classes over spread between them: small is good, 1 and more means that classes overlap.

    `Σ_i |z_i - μ_{y_i}|² / Σ_i |μ_{y_i} - μ|²`, on unit embeddings; infinite where all class means coincide.

    Args:
        labels: `(N,)`.
        embeddings: `(N, dim)`.

    Example:

    >>> within_between_ratio([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    0.0
    """
    z = _unit(embeddings)
    _, slot, counts = np.unique(np.asarray(labels).ravel(), return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), z.shape[1]))
    np.add.at(means, slot, z)
    means = (means / counts[:, None])[slot]
    between = np.sum((means - z.mean(axis=0)) ** 2)
    return float(np.sum((z - means) ** 2) / between) if between > 1e-12 * len(z) else float("inf")


def active_triplets(labels: ArrayLike, embeddings: ArrayLike, margin: float = 0.2) -> float:
    """Return the share of triplets that a triplet loss still learns from: `d_ap - d_an + margin > 0`, Euclidean.

    Counted by sorting, without an `N³` tensor. Not a number where the labels form no triplet.

    Args:
        labels: `(N,)`.
        embeddings: `(N, dim)`.
        margin: Default 0.2.

    Example:

    >>> active_triplets([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    0.5
    """
    z, labels = _unit(embeddings), np.asarray(labels).ravel()
    distances = np.sqrt(np.maximum(2 - 2 * z @ z.T, 0))
    active = total = 0
    for anchor, row in enumerate(distances):
        positives = labels == labels[anchor]
        negatives = np.sort(row[~positives])
        positives[anchor] = False
        active += np.searchsorted(negatives, row[positives] + margin, side="left").sum()
        total += positives.sum() * len(negatives)
    return float(active / total) if total else float("nan")


def proxies_never_hit(embeddings: ArrayLike, proxies: ArrayLike) -> float:
    """Return the share of the proxies that are the nearest proxy of no embedding.

    Args:
        embeddings: `(N, dim)`; N should be well above the number of proxies, or many have no chance.
        proxies: `(P, dim)`.

    Example:

    >>> proxies_never_hit([[1.0, 0.1], [1.0, -0.1]], [[1.0, 0.0], [-1.0, 0.0]])
    0.5
    """
    proxies = _unit(proxies)
    nearest = np.argmax(_unit(embeddings) @ proxies.T, axis=1)
    return 1.0 - len(np.unique(nearest)) / len(proxies)


# Between a run that retrieved well from a narrow cap (mean cosine 0.996, ratio 0.36) and dead ones (from 0.92): see
# "Collapse, provoked and detected" in docs/results.md.
OVERLAP = 0.5


def advice(measures: dict[str, float]) -> str | None:
    """Return what to try, if the measures say that the embeddings have collapsed or died; otherwise `None`.

    A high mean cosine alone is no collapse: what counts is whether classes still differ within the narrow cap that the
    embeddings fill, so `within_between_ratio` has a say.

    Args:
        measures: As from `measure`.
    """
    if not all(np.isfinite(measures[name]) for name in ("mean_cosine", "effective_rank")):
        return "Embeddings are not finite. Lower the learning rate, clip gradients, and look for broken images."
    if measures["mean_cosine"] > 0.95 and measures["within_between_ratio"] > OVERLAP:
        return (
            f"Embeddings collapse to one point (mean cosine {measures['mean_cosine']:.3f}). Try a lower learning rate, "
            "a warm-up with the backbone frozen, semi-hard instead of hardest negatives, a bias in the projection, "
            "or a proxy loss."
        )
    if measures["effective_rank"] < 2:
        return (
            f"Embeddings use {measures['effective_rank']:.1f} direction(s) only. Try a center-separation regularizer "
            "such as regularizers.Uniformity, more classes per batch, or a lower learning rate for the head."
        )
    if measures["within_between_ratio"] == float("inf"):
        return "All classes have the same mean embedding: check that the labels belong to the images."
    return None


def measure(
    labels: ArrayLike, embeddings: ArrayLike, proxies: ArrayLike | None = None, margin: float = 0.2
) -> dict[str, float]:
    """Return all measures of this page, by name.

    Args:
        labels: `(N,)`.
        embeddings: `(N, dim)`.
        proxies: `(P, dim)`. Default None: `proxies_never_hit` is left out.
        margin: Of the triplets. Default 0.2.

    Raises:
        ValueError: If there are fewer than two embeddings, or labels do not fit.

    Example:

    >>> sorted(measure([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    ['active_triplets', 'effective_rank', 'mean_cosine', 'within_between_ratio']
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or len(embeddings) < 2 or np.size(labels) != len(embeddings):
        raise ValueError(
            "`embeddings` must have shape (N, dim) with N of 2 or more, and `labels` one entry for each; "
            f"received {embeddings.shape} and {np.size(labels)} labels."
        )
    if not np.isfinite(embeddings).all():
        names = ["mean_cosine", "effective_rank", "within_between_ratio", "active_triplets"]
        return dict.fromkeys(names + ["proxies_never_hit"] * (proxies is not None), float("nan"))
    found = {
        "mean_cosine": mean_cosine(embeddings),
        "effective_rank": effective_rank(embeddings),
        "within_between_ratio": within_between_ratio(labels, embeddings),
        "active_triplets": active_triplets(labels, embeddings, margin),
    }
    if proxies is not None:
        found["proxies_never_hit"] = proxies_never_hit(embeddings, proxies)
    return found


class Health(keras.callbacks.Callback):
    """Logs the health of the embeddings after each epoch, and warns, with advice, when they have collapsed.

    The entries are `health_mean_cosine`, `health_effective_rank`, `health_within_between_ratio`,
    `health_active_triplets` and, where the loss owns proxies, `health_proxies_never_hit`.

    Args:
        images: A sample of the training images, `(N, H, W, 3)`: some hundred are plenty.
        labels: Their classes, `(N,)`.
        prefix: Of the names. Default `"health_"`.
        margin: Of the triplets. Default 0.2.
        batch_size: Default 128.
        settle: Optimizer steps without warnings at the start: until the moving averages of batch normalization have
            caught up, a net from scratch does send all images to nearly one point at inference. Default 300.

    Attributes:
        warned: Epochs with a warning, counted from 1.

    Raises:
        ValueError: If there are fewer than two images, or labels do not fit.

    Example:

    >>> watch = Health(np.zeros((4, 8, 8, 3)), [0, 0, 1, 1])
    >>> watch.prefix
    'health_'
    """

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        prefix: str = "health_",
        margin: float = 0.2,
        batch_size: int = 128,
        settle: int = 300,
    ) -> None:
        super().__init__()
        # Images stay what they are: an array of a data set may be a view that takes a third of the memory.
        self.images: np.ndarray = images if isinstance(images, np.ndarray) else np.asarray(images)
        self.labels: np.ndarray = np.asarray(labels)
        if len(self.images) < 2 or len(self.images) != len(self.labels):
            raise ValueError(
                "`images` must be 2 or more with a label for each; received "
                f"{len(self.images)} and {len(self.labels)} labels."
            )
        self.prefix, self.margin, self.batch_size, self.settle = prefix, margin, batch_size, settle
        self.warned: list[int] = []
        self._idle = True

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.warned, self._idle = [], True

    @classmethod
    def of(cls, image_set: "ImageSet", size: int = 512, seed: int = 0, **options: Any) -> "Health":
        """Return a callback that watches some whole classes of a `datasets.ImageSet`.

        Args:
            image_set: The training images.
            size: Number of images, about. Default 512.
            seed: Of the choice of classes. Default 0.
            **options: As for `Health`.
        """
        order = np.random.default_rng(seed).permutation(int(image_set.labels.max()) + 1)
        rank = np.argsort(order)[image_set.labels]
        chosen = image_set.subset(np.sort(np.argsort(rank, kind="stable")[:size]))
        # By index: files that cannot be read are left out.
        images, rows = zip(*((images.numpy(), rows.numpy()) for images, rows in chosen.indexed(128)), strict=True)
        return cls(np.concatenate(images), chosen.labels[np.concatenate(rows)], **options)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        found = self.measure()
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in found.items()})
        hint = advice(found) if int(self.model.optimizer.iterations) > self.settle else None
        logs = logs or {}
        # Zero from the first epoch on; later it may be a triplet loss that has nothing left to do.
        self._idle = self._idle and logs.get("metric_loss", logs.get("loss")) == 0
        if self._idle:
            hint = (
                "The metric loss is 0: nothing is learned. A pair loss needs batches with two images of a class and "
                "two classes or more, as batches(classes=32, images=4) gives."
            )
        if hint:
            self.warned.append(epoch + 1)
            warnings.warn(f"Epoch {epoch + 1}: {hint}", RuntimeWarning, stacklevel=2)

    def measure(self) -> dict[str, float]:
        """Return the measures of the model as it is."""
        embedder: Any = getattr(self.model, "embedder", self.model)
        steps = range(0, len(self.images), self.batch_size)
        parts = [embedder(self.images[i : i + self.batch_size], training=False) for i in steps]
        proxies = getattr(getattr(self.model, "loss_function", None), "proxies", None)
        proxies = None if proxies is None else keras.ops.convert_to_numpy(proxies)
        embeddings = np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])
        return measure(self.labels, embeddings, proxies, self.margin)


def _unit(vectors: ArrayLike) -> np.ndarray:
    """Return rows of length 1 in float64; zero rows stay."""
    vectors = np.asarray(vectors, dtype=np.float64)
    result: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return result

"""Retrieval on held-out images after each epoch, as ordinary entries of the logs."""

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_detreg import checks
from tf_detreg.retrieval import RetrievalReport, evaluate, inputs
from tf_detreg.retrieval.embedding import Embedded, embed
from tf_detreg.retrieval.trained_classes import by_training, is_trained
from tf_detreg.training.optimizers import averaged

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


class RetrievalEvaluation(keras.callbacks.Callback):
    """Puts `val_recall@1`, `val_recall@2` … and `val_map@r` into the logs of an epoch.

    Put it before `ModelCheckpoint`, `EarlyStopping` and the like, which can then watch what matters:
    `EarlyStopping("val_recall@1", mode="max", patience=5)`. Keras cannot guess the direction: give `mode="max"`.

    The embedder is measured as it would be used: where the optimizer keeps a moving average of the weights, with that.
    So leave `keras.callbacks.SwapEMAWeights` out, which would have swapped the two before.

    Args:
        image_set: `datasets.ImageSet` of images that are not trained on, best of classes that are not either.
        prefix: Of the names. Default `"val_"`.
        k: Rank or ranks of the recall. Default 1, 2, 4, 8.
        every: Epochs from one evaluation to the next. Default 1.
        batch_size: Default 128.

    Raises:
        ValueError: If `image_set` is no image set or no class of it has two images, `every` is below 1, or `k` holds
            what is no rank.

    Example:
        >>> from tf_detreg import datasets
        >>> watch = RetrievalEvaluation(datasets.digits().validation, k=(1, 5))
        >>> watch.names
        ['val_recall@1', 'val_recall@5', 'val_map@r']
    """

    def __init__(
        self,
        image_set: "ImageSet",
        prefix: str = "val_",
        k: Sequence[int] = (1, 2, 4, 8),
        every: int = 1,
        batch_size: int = 128,
    ) -> None:
        super().__init__()
        if not hasattr(image_set, "indexed"):
            raise checks.invalid(
                "image_set",
                "be a datasets.ImageSet",
                type(image_set).__name__,
                "Make one of arrays with datasets.ImageSet(labels, class_names, images), or of a folder with "
                "datasets.folder(path).",
            )
        if not has_pairs(image_set):
            raise checks.invalid(
                "image_set", "hold a class with two images, so that one can find the other", f"{len(image_set)} images"
            )
        self.every = checks.integer("every", every, 1)
        self.image_set, self.prefix, self.batch_size = image_set, prefix, batch_size
        self.k = inputs.ranks_at(k, sys.maxsize)  # `retrieve` leaves out those beyond the size of the set

    @property
    def names(self) -> list[str]:
        """Return the names of the entries."""
        return [f"{self.prefix}recall@{k}" for k in self.k] + [f"{self.prefix}map@r"]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if (epoch + 1) % self.every == 0 and logs is not None:
            logs.update(self.measure())

    def measure(self) -> dict[str, float]:
        """Return the entries for the model as it is."""
        with averaged(self.model):
            report = retrieve(getattr(self.model, "embedder", self.model), self.image_set, self.k, self.batch_size)
        found = {f"{self.prefix}recall@{k}": value for k, value in report.recall.items()}
        return {**found, f"{self.prefix}map@r": report.map_at_r}


def retrieve(
    embedder: keras.Model,
    image_set: "ImageSet",
    k: Sequence[int] = (1, 2, 4, 8),
    batch_size: int = 128,
    resamples: int = 0,
    gallery: "ImageSet | None" = None,
) -> RetrievalReport:
    """Evaluate retrieval on an image set, searched in itself or in another one.

    Args:
        embedder: Images → embeddings.
        image_set: The queries, a `datasets.ImageSet`.
        k: Ranks of the recall; those beyond the size of what is searched are left out.
        batch_size: Default 128.
        resamples: For the report's intervals. Default 0: none.
        gallery: The set to search. Default: the queries themselves.
    """
    found, there = _embedded(embedder, image_set, gallery, batch_size)
    size = len(there["gallery_labels"]) if there else len(found.labels) - 1
    ranks = inputs.ranks_within(k, size)
    return evaluate(
        found.embeddings, found.labels, **there, k=ranks, engine="exact", resamples=resamples, progress=False
    )


def final_evaluation(
    embedder: keras.Model,
    image_set: "ImageSet",
    k: Sequence[int],
    trained_on: Collection[str],
    gallery: "ImageSet | None" = None,
) -> dict[str, object]:
    """Return what `evaluation.json` says of an image set.

    Args:
        embedder: Images → embeddings.
        image_set: The queries, a `datasets.ImageSet`.
        k: Ranks of the recall; those beyond the size of what is searched are left out.
        trained_on: Names of the classes that were trained on.
        gallery: The set to search. Default: the queries themselves.

    Returns:
        The report on all classes as plain values; `trained_classes`, how many of them were trained on; and where that
        is a part of them, the reports `seen` and `unseen` of the two parts.
    """
    found, there = _embedded(embedder, image_set, gallery)
    size = len(there["gallery_labels"]) if there else len(found.labels) - 1
    options = {"engine": "exact", "resamples": 1000, "progress": False, **there}
    whole = evaluate(found.embeddings, found.labels, k=inputs.ranks_within(k, size), **options)
    trained = is_trained(image_set.class_names, trained_on)
    parts = by_training(found.embeddings, found.labels, trained, k=k, **options)
    return {**whole.to_dict(), **parts.to_dict()}


def _embedded(
    embedder: keras.Model, image_set: "ImageSet", gallery: "ImageSet | None", batch_size: int = 128
) -> tuple[Embedded, dict[str, Any]]:
    """Return the queries' embeddings, and those of the gallery as arguments of `retrieval.evaluate`."""
    found = embed(embedder, image_set, batch_size)
    if gallery is None:
        return found, {}
    items = embed(embedder, gallery, batch_size)
    return found, {"gallery": items.embeddings, "gallery_labels": items.labels}


def has_pairs(image_set: "ImageSet") -> bool:
    """Return whether any class has two images, without which there is nothing to retrieve."""
    return bool(len(image_set)) and int(np.bincount(image_set.labels).max()) > 1

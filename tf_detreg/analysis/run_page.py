"""The report of a run: recall before and after training, curves, and what unseen classes' neighbors look like."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg.analysis import class_recall, embedding_map, inspect, neighbors, report
from tf_detreg.retrieval import RetrievalReport, evaluate, inputs
from tf_detreg.retrieval.trained_classes import PARTS, TrainedClasses, by_training, is_trained, sentence

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


def compare(
    embeddings: Mapping[str, Sequence[np.ndarray]], labels: Sequence[np.ndarray], k: Sequence[int]
) -> dict[str, RetrievalReport]:
    """Return the same evaluation of several embeddings of the same images.

    Args:
        embeddings: What it is (`"raw pixels"`, `"after training"`) to `[(Q, dim)]`, the queries alone, which are
            searched for among themselves, or to `[(Q, dim), (N, dim)]`, queries and gallery.
        labels: `[(Q,)]`, or `[(Q,), (N,)]`.
        k: Ranks of the recall; those beyond the size of what is searched are left out.
    """
    ranks = inputs.ranks_within(k, len(labels[-1]) - (len(labels) == 1))
    found = {}
    for name, rows in embeddings.items():
        pairs = [value for pair in zip(rows, labels, strict=True) for value in pair]
        found[name] = evaluate(*pairs, k=ranks, progress=False)
    return found


def recall_rows(reports: Mapping[str, RetrievalReport]) -> list[dict[str, object]]:
    """Return a row an embedding, in percent, for a table."""
    return [
        {"embedding": name, **{f"R@{k}": 100 * v for k, v in found.recall.items()}, "MAP@R": 100 * found.map_at_r}
        for name, found in reports.items()
    ]


def raw_pixels(image_set: "ImageSet") -> np.ndarray:
    """Return the gray values themselves as vectors: the baseline that any embedding must beat.

    A black image has the direction of a gray one: zeros have none.
    """
    rows = [images.numpy().mean(axis=-1).reshape(len(images), -1) for images, _ in image_set.ordered(256)]
    vectors = np.concatenate(rows).astype(np.float32)
    vectors[~vectors.any(axis=1)] = 1
    return vectors


def write(
    path: str | os.PathLike[str],
    title: str,
    images: Sequence[Any],
    embeddings: Sequence[np.ndarray],
    reports: Mapping[str, RetrievalReport],
    history: Sequence[Mapping[str, float]],
    config: Mapping[str, object],
    seed: int = 0,
    trained_on: Collection[str] | None = None,
) -> pathlib.Path:
    """Write the page.

    Args:
        path: Where it goes.
        title: Its heading.
        images: `[ImageSet]` of the test images, or `[queries, gallery]`, which number classes alike.
        embeddings: Of each, after training, a row an image.
        reports: Of `compare`; the last one is the trained model's.
        history: A mapping an epoch.
        config: The run's configuration, shown folded.
        seed: Of the choice of queries, and of images on the map. Default 0.
        trained_on: Names of the classes that were trained on. Default: not known, and nothing is said of it.
    """
    final = list(reports.values())[-1]
    some, wrong = _choose(final.per_query, seed)
    queries, *gallery = images
    lead = f"{len(queries):,} test images of {queries.num_classes:,} classes: each is searched for "
    lead += f"in a gallery of {len(gallery[0]):,}. " if gallery else "among all the others. "
    lead += f"{100 * final.recall[min(final.recall)]:.1f} % find their own class first."
    recall = report.table(recall_rows(reports), best=len(reports) - 1)
    if trained_on is not None:
        parts = _by_training(images, embeddings, trained_on, sorted(final.recall))
        lead += " " + sentence(parts.trained, parts.classes)
        shown = recall_rows({PARTS[name]: part for name, part in parts.reports.items()})
        # A small part may lack the higher ranks.
        columns = dict.fromkeys((column for row in shown for column in row), "–")
        recall += report.table([{**columns, **row} for row in shown]) if shown else ""
    drawn = functools.partial(neighbors.within, queries, embeddings[0])
    if gallery:
        lead += " Hard queries, confused classes, hubs and duplicates are those of queries and gallery put together."
        drawn = functools.partial(
            neighbors.across, queries, embeddings[0], gallery=gallery[0], gallery_embeddings=embeddings[1]
        )
    together, rows = _together(*images), np.concatenate(embeddings)
    sections = [
        report.Section(
            "Recall on the test images",
            "Share of queries, in %, with the right class among the first k neighbors.",
            recall,
        ),
        report.Section("Training", "Every logged quantity after each epoch.", report.curves(history)),
        embedding_map.section(together, rows, seed),
        class_recall.section(class_recall.by_class(final.per_query, queries.labels, queries.class_names)),
        report.Section(
            "Neighbors",
            "Queries drawn at random. Blue: the query; green: its class; red and dashed: another one.",
            drawn(queries=some).to_html(),
        ),
        report.Section(
            "Mistakes",
            "Queries whose nearest neighbor is wrong, drawn at random.",
            drawn(queries=wrong).to_html() if len(wrong) else "<p>No query is wrong.</p>",
        ),
        *inspect.sections(together, rows),
        report.Section("How to repeat it", "The configuration of the run.", report.details("config", config)),
    ]
    style = neighbors.STYLE + embedding_map.STYLE + class_recall.STYLE
    return report.write(path, title, lead, sections, style, embedding_map.SCRIPT)


def _by_training(
    images: Sequence["ImageSet"], embeddings: Sequence[np.ndarray], trained_on: Collection[str], k: Sequence[int]
) -> TrainedClasses:
    there = {"gallery": embeddings[1], "gallery_labels": images[1].labels} if len(images) > 1 else {}
    trained = is_trained(images[0].class_names, trained_on)
    return by_training(embeddings[0], images[0].labels, trained, **there, k=k, resamples=0, progress=False)


def _together(queries: "ImageSet", gallery: "ImageSet | None" = None) -> "ImageSet":
    """Return queries and gallery as one set."""
    if gallery is None:
        return queries
    pixels: dict[str, Any] = {"images": None, "paths": [*(queries.paths or ()), *(gallery.paths or ())]}
    if queries.images is not None:
        pixels = {"images": np.concatenate([queries.pixels, gallery.pixels])}
    labels = np.concatenate([queries.labels, gallery.labels])
    return dataclasses.replace(queries, labels=labels, groups=None, **pixels)


def _choose(per_query: Mapping[str, np.ndarray], seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return some queries at random, and some of those whose nearest neighbor is wrong; neither without positives."""
    rng = np.random.default_rng(seed)
    known = per_query["relevant"] > 0
    wrong = known & (per_query["first_rank"] > 1)
    some, mistaken = (np.sort(rng.permutation(np.flatnonzero(mask))[:count]) for mask in (known, wrong))
    return some, mistaken

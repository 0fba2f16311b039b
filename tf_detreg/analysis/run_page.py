"""The report of a run: recall before and after training, curves, and what unseen classes' neighbours look like."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tf_detreg.analysis import inspect, neighbours, report
from tf_detreg.retrieval import RetrievalReport, evaluate


def compare(embeddings: Mapping[str, np.ndarray], labels: np.ndarray, k: Sequence[int]) -> dict[str, RetrievalReport]:
    """The same evaluation of several embeddings of the same images.

    Args:
        embeddings: What it is (`"raw pixels"`, `"after training"`) to `(N, dim)`.
        labels: `(N,)`.
        k: Ranks of the recall.
    """
    return {name: evaluate(rows, labels, k=k, progress=False) for name, rows in embeddings.items()}


def recall_rows(reports: Mapping[str, RetrievalReport]) -> list[dict[str, object]]:
    """A row an embedding, in percent, for a table."""
    return [
        {"embedding": name, **{f"R@{k}": 100 * v for k, v in found.recall.items()}, "MAP@R": 100 * found.map_at_r}
        for name, found in reports.items()
    ]


def raw_pixels(image_set) -> np.ndarray:
    """The grey values themselves as vectors: the baseline that any embedding must beat.

    A black image has the direction of a grey one: zeros have none.
    """
    rows = [images.numpy().mean(axis=-1).reshape(len(images), -1) for images, _ in image_set.ordered(256)]
    vectors = np.concatenate(rows).astype(np.float32)
    vectors[~vectors.any(axis=1)] = 1
    return vectors


def write(
    path: str | os.PathLike,
    title: str,
    image_set,
    embeddings: np.ndarray,
    reports: Mapping[str, RetrievalReport],
    history: Sequence[Mapping[str, float]],
    config: Mapping[str, object],
    seed: int = 0,
) -> pathlib.Path:
    """Write the page.

    Args:
        path: Where it goes.
        title: Its heading.
        image_set: Images that were held back from training.
        embeddings: `(N, dim)`, after training, a row an image.
        reports: Of `compare`; the last one is the trained model's.
        history: A mapping an epoch.
        config: The run's configuration, shown folded.
        seed: Of the choice of queries to show. Defaults to 0.
    """
    final = list(reports.values())[-1]
    some, wrong = _choose(final.per_query, seed)
    lead = (
        f"{len(image_set):,} images of {image_set.num_classes:,} classes, held back from training: each is "
        f"searched for among all the others. {100 * final.recall[min(final.recall)]:.1f} % find their own class first."
    )
    sections = [
        report.Section(
            "Recall on what was held back",
            "Share of queries, in %, with the right class among the first k neighbours.",
            report.table(recall_rows(reports)),
        ),
        report.Section("Training", "Every logged quantity after each epoch.", report.curves(history)),
        report.Section(
            "Neighbours",
            "Queries drawn at random. Blue: the query; green: its class; red and dashed: another one.",
            neighbours.within(image_set, embeddings, some).to_html(),
        ),
        report.Section(
            "Mistakes",
            "Queries whose nearest neighbour is wrong, drawn at random.",
            neighbours.within(image_set, embeddings, wrong).to_html() if len(wrong) else "<p>No query is wrong.</p>",
        ),
        *inspect.sections(image_set, embeddings),
        report.Section("How to repeat it", "The configuration of the run.", report.details("config", config)),
    ]
    return report.write(path, title, lead, sections, neighbours.STYLE)


def _choose(per_query: Mapping[str, np.ndarray], seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Some queries at random, and some of those whose nearest neighbour is wrong; lone queries are neither."""
    rng = np.random.default_rng(seed)
    known = per_query["relevant"] > 0
    wrong = known & (per_query["first_rank"] > 1)
    return tuple(np.sort(rng.permutation(np.flatnonzero(mask))[:count]) for mask in (known, wrong))

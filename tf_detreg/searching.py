"""Search with image files: among the images of a run, or in an index of a catalog."""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import retrieval
from tf_detreg.analysis import neighbors
from tf_detreg.image_files import folder_label, image_files, item_metadata, paths_of, unlabeled
from tf_detreg.indexing import index_files, open_catalog, open_index
from tf_detreg.retrieval.decision import decision_of

if TYPE_CHECKING:
    import keras

    from tf_detreg.index.filters import Where

# Some of these have their homes elsewhere since 0.2.0.
__all__ = ["embed_files", "folder_label", "image_files", "index_files", "open_index", "search_index", "search_run"]


def search_run(
    directory: str | os.PathLike[str], queries: Sequence[str | os.PathLike[str]], k: int = 8, data: str | None = None
) -> neighbors.Neighbors:
    """Find the nearest images of a run's data set for each query image.

    Args:
        directory: The run.
        queries: Image files, or folders of them; those that cannot be read are left out and named in the log.
        k: Neighbors of each. Default 8.
        data: Where the run's images are now, if they have moved. Default: where the run found them.

    Returns:
        What was found, ready to be drawn.

    Raises:
        ValueError: If no query can be read.
    """
    from tf_detreg import training

    run = training.load_run(directory, data)
    asked = image_files(queries, run.embedder)
    found = training.embed(run.embedder, asked, title="Embedding queries")
    parts = [part for part in run.splits() if len(part)]
    embedded = [training.embed(run.embedder, part, title="Embedding the run's images") for part in parts]
    gallery = np.concatenate([part.embeddings for part in embedded])
    where = [(n, i) for n, part in enumerate(embedded) for i in part.indices]
    ids, scores = retrieval.search(found.embeddings, gallery, min(k, len(gallery)))
    names = [[parts[n].class_names[parts[n].labels[i]] for n, i in (where[j] for j in row)] for row in ids]
    decision = decision_of(directory)
    pictures = np.stack([neighbors.pixels(parts[where[j][0]], np.array([where[j][1]]))[0] for j in ids.ravel()])
    return neighbors.Neighbors(
        queries=neighbors.pixels(asked, found.indices),
        found=pictures.reshape(*ids.shape, *pictures.shape[1:]),
        scores=scores,
        query_names=[pathlib.Path(paths_of(asked)[i]).name for i in found.indices],
        found_names=names,
        **_decided(decision, run.embedder, scores),
    )


def _decided(decision: retrieval.Decision | None, embedder: "keras.Model", scores: np.ndarray) -> dict[str, Any]:
    """Return what a decision on the nearest cosine says about scores (Q, k); empty without one."""
    if decision is None or decision.score != "nearest":
        return {}
    decision.refuse_other_model(retrieval.fingerprint(embedder))
    return {"accepted": decision.accepted(scores), "probabilities": decision.probability(scores)}


def embed_files(
    directory: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    format: str = "npz",
) -> tuple[int, int]:
    """Embed image files by a run's model into one file.

    Args:
        directory: The run.
        images: Image files, or folders of them; those that cannot be read are left out and named in the log.
        out: The file.
        format: `"npz"`, the default: `embeddings` (N, dim) and `paths` (N). Or `"parquet"`: a table of `id` (the file
            as it was given), `vector`, `path` and, where folders are classes, `label`; see `retrieval.parquet`.

    Returns:
        How many files were embedded, and how many there are.

    Raises:
        ImportError: If Parquet is asked for without pyarrow.
        ValueError: If the format is none, or not one file can be read.
    """
    from tf_detreg import training
    from tf_detreg.files import replacing
    from tf_detreg.retrieval import parquet

    if format not in ("npz", "parquet"):
        raise ValueError(f"`format` must be 'npz' or 'parquet'; received {format!r}.")
    if format == "parquet":
        parquet.require()
    run = training.load_run(directory)
    files = image_files(images, run.embedder)
    found = training.embed(run.embedder, files, progress=None)
    names = [paths_of(files)[i] for i in found.indices]
    if format == "npz":
        with replacing(out) as temporary, open(temporary, "wb") as file:
            np.savez(file, embeddings=found.embeddings, paths=np.asarray(names))
    else:
        metadata = item_metadata(names, images)
        model: dict[str, Any] = {
            "model": pathlib.Path(directory).resolve().name,
            "fingerprint": retrieval.fingerprint(run.embedder),
        }
        table = parquet.schema(found.embeddings.shape[1], parquet.fields_of(metadata), **model)
        with parquet.writing(out, table) as write:
            write(names, found.embeddings, metadata)
    return len(names), len(files) + len(files.skipped)


def search_index(
    place: str | os.PathLike[str],
    directory: str | os.PathLike[str] | None,
    queries: Sequence[str | os.PathLike[str]],
    k: int = 8,
    where: "Where | None" = None,
) -> neighbors.Neighbors:
    """Return the nearest items of an index for each query image.

    Args:
        place: The index's folder, or a folder of its shards.
        directory: The run whose model made it. Default: as the index noted.
        queries: Image files, or folders of them.
        k: Neighbors of each. Default 8.
        where: Only items that this filter keeps; see `Index.search`. Default None: all.

    Returns:
        What was found, named by file and folder. Items whose files have gone are found all the same, and drawn gray.
        An item's file is the `path` in its metadata, or else its id.

    Raises:
        ValueError: If the index is damaged, or another model made it, or its run is not where it was.
    """
    from tf_detreg import training

    index, run, decision = open_catalog(place, directory)
    few = min(k, max(1, index.count(where)))  # a filter that cannot be read is refused before anything is embedded
    asked = image_files(queries, run.embedder)
    found = training.embed(run.embedder, asked)
    made_by = retrieval.fingerprint(run.embedder)
    matches = index.search(found.embeddings, few, where=where, fingerprint=made_by, decision=decision)
    files = [
        [str(item.get("path", id)) for id, item in zip(*row, strict=True)]
        for row in zip(matches.ids, matches.metadata, strict=True)
    ]
    gallery = unlabeled(sorted({file for row in files for file in row}), run.embedder)
    place_of = {path: i for i, path in enumerate(paths_of(gallery))}
    return neighbors.Neighbors(
        queries=neighbors.pixels(asked, found.indices),
        found=neighbors.pixels(gallery, np.asarray([[place_of[file] for file in row] for row in files])),
        scores=matches.scores,
        query_names=[pathlib.Path(paths_of(asked)[i]).name for i in found.indices],
        found_names=[[os.path.join(*pathlib.Path(str(name)).parts[-2:]) for name in row] for row in matches.ids],
        accepted=matches.accepted,
        probabilities=matches.probabilities,
        items=[
            [{"id": id, "metadata": facts} for id, facts in zip(*row, strict=True)]
            for row in zip(matches.ids, matches.metadata, strict=True)
        ],
    )

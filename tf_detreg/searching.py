"""Search with image files: among the images of a run, or in an index of a catalogue."""

import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import retrieval
from tf_detreg.analysis import neighbors
from tf_detreg.files import existing
from tf_detreg.retrieval.decision import decision_of

if TYPE_CHECKING:
    import keras

    from tf_detreg.datasets import ImageSet
    from tf_detreg.index import Index
    from tf_detreg.training import Run


def image_files(paths: Sequence[str | os.PathLike[str]], embedder: "keras.Model") -> "ImageSet":
    """Return files, and what is named like a picture inside folders, as an unlabelled `ImageSet` of an embedder's size.

    Raises:
        FileNotFoundError: If a path is missing.
        ValueError: If folders hold no image.
    """
    from tf_detreg.datasets.scan import passed_over, sift
    from tf_detreg.images import EXTENSIONS

    files: list[str] = []
    skipped: dict[str, str] = {}
    for path in map(pathlib.Path, paths):
        existing(path, "paths", "Give image files, or folders of them.")
        if path.is_dir():
            visible = sorted(str(file) for file in path.rglob("*") if _is_visible(file, path))
            left_out = passed_over(visible, str(path))
            left_out |= sift((file for file in visible if file not in left_out), str(path))
            files += [file for file in visible if file not in left_out]
            skipped |= left_out
        else:
            files.append(str(path))
    files = list(dict.fromkeys(files))
    if not files:
        known = ", ".join(sorted(EXTENSIONS))
        raise ValueError(f"No image in {', '.join(map(str, paths))}: known endings are {known}.")
    return _unlabeled(files, embedder, skipped)


def _is_visible(file: pathlib.Path, folder: pathlib.Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and not file.is_dir()


def _unlabeled(files: Sequence[str], embedder: "keras.Model", skipped: Mapping[str, str] | None = None) -> "ImageSet":
    from tf_detreg.datasets import ImageSet

    size = tuple(embedder.input_shape[1:3])
    return ImageSet(
        labels=np.zeros(len(files), np.int32),
        class_names=["?"],
        paths=files,
        image_size=size,
        name="the files",
        skipped=tuple((skipped or {}).items()),
    )


def _paths(images: "ImageSet") -> Sequence[str]:
    """Return the files of a set of files."""
    if images.paths is None:
        raise ValueError(f"`images` must be a set of files; received {images.name!r}, which is held in memory.")
    return images.paths


def search_run(
    directory: str | os.PathLike[str], queries: Sequence[str | os.PathLike[str]], k: int = 8, data: str | None = None
) -> neighbors.Neighbors:
    """Find the nearest images of a run's data set for each query image.

    Args:
        directory: The run.
        queries: Image files, or folders of them; those that cannot be read are left out and named in the log.
        k: Neighbors of each. Defaults to 8.
        data: Where the run's images are now, if they have moved. Default: where the run found them.

    Returns:
        What was found, ready to be drawn.

    Raises:
        ValueError: If no query can be read.
    """
    from tf_detreg import training

    run = training.load_run(directory, data)
    asked = image_files(queries, run.embedder)
    found = training.embed(run.embedder, asked)
    parts = [part for part in run.splits() if len(part)]
    embedded = [training.embed(run.embedder, part, progress=None) for part in parts]
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
        query_names=[pathlib.Path(_paths(asked)[i]).name for i in found.indices],
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
    names = [_paths(files)[i] for i in found.indices]
    if format == "npz":
        with replacing(out) as temporary, open(temporary, "wb") as file:
            np.savez(file, embeddings=found.embeddings, paths=np.asarray(names))
    else:
        metadata = item_metadata(names, images)
        model = {"model": pathlib.Path(directory).resolve().name, "fingerprint": retrieval.fingerprint(run.embedder)}
        table = parquet.schema(found.embeddings.shape[1], parquet.fields_of(metadata), **model)
        with parquet.writing(out, table) as write:
            write(names, found.embeddings, metadata)
    return len(names), len(files) + len(files.skipped)


def item_metadata(names: Sequence[str], images: Sequence[str | os.PathLike[str]]) -> list[dict[str, object]]:
    """Return what is known about image files by their names: `path` and, where folders are classes, `label`.

    Args:
        names: The files.
        images: What was given to find them: files and folders.
    """
    folders = [pathlib.Path(path) for path in images if pathlib.Path(path).is_dir()]
    return [{"path": str(pathlib.Path(name).resolve()), **folder_label(name, folders)} for name in names]


def index_files(directory: str | os.PathLike[str], images: Sequence[str | os.PathLike[str]]) -> "Index":
    """Return an `index.Index` of image files, embedded by a run's model.

    Args:
        directory: The run.
        images: Image files, or folders of them; those that cannot be read are left out and named in the log.

    Returns:
        The index: each item's id is its file; its metadata say where file and run are and, for a file in a folder
        inside a given one, its `label`: the name of that inner folder.
    """
    from tf_detreg import training
    from tf_detreg.index import Index
    from tf_detreg.serving.gallery import MOST_NEIGHBORS

    run = training.load_run(directory)
    files = image_files(images, run.embedder)
    found = training.embed(run.embedder, files, progress=None)
    names = [_paths(files)[i] for i in found.indices]
    run_path = str(pathlib.Path(directory).resolve())
    metadata = [{**facts, "run": run_path} for facts in item_metadata(names, images)]
    made = Index(found.embeddings, names, metadata, retrieval.fingerprint(run.embedder))
    made.decision = decision_of(directory)
    made.tune(min(MOST_NEIGHBORS, len(made)))  # a large catalogue keeps its ScaNN tree, as deep as the server asks
    return made


def folder_label(file: str | os.PathLike[str], folders: Sequence[pathlib.Path]) -> dict[str, str]:
    """Return the label of a file that lies in a folder inside one of the given folders, as `{"label": name}`.

    Args:
        file: The file.
        folders: The folders that were given. A file right in one of them, or in none, has no label.

    Returns:
        The name of the folder that holds the file, in Unicode's form NFC and without spaces around it; or nothing.

    Example:
        >>> folder_label("photos/daisy/1.jpg", [pathlib.Path("photos")])
        {'label': 'daisy'}
        >>> folder_label("photos/1.jpg", [pathlib.Path("photos")])
        {}
    """
    parent = pathlib.Path(file).parent
    if not any(folder in parent.parents for folder in folders) or parent in folders:
        return {}
    label = unicodedata.normalize("NFC", parent.name).strip()
    return {"label": label} if label else {}


def search_index(
    place: str | os.PathLike[str],
    directory: str | os.PathLike[str] | None,
    queries: Sequence[str | os.PathLike[str]],
    k: int = 8,
) -> neighbors.Neighbors:
    """Return the nearest items of an index for each query image.

    Args:
        place: The index's folder.
        directory: The run whose model made it. Default: as the index noted.
        queries: Image files, or folders of them.
        k: Neighbors of each. Defaults to 8.

    Returns:
        What was found, named by file and folder. Items whose files have gone are found all the same, and drawn grey.
        An item's file is the `path` in its metadata, or else its id.

    Raises:
        ValueError: If the index is damaged, or another model made it, or its run is not where it was.
    """
    from tf_detreg import training

    index, run, decision = open_index(place, directory)
    asked = image_files(queries, run.embedder)
    found = training.embed(run.embedder, asked)
    matches = index.search(
        found.embeddings, min(k, len(index)), fingerprint=retrieval.fingerprint(run.embedder), decision=decision
    )
    files = [
        [str(item.get("path", id)) for id, item in zip(*row, strict=True)]
        for row in zip(matches.ids, matches.metadata, strict=True)
    ]
    gallery = _unlabeled(sorted({file for row in files for file in row}), run.embedder)
    place_of = {path: i for i, path in enumerate(_paths(gallery))}
    return neighbors.Neighbors(
        queries=neighbors.pixels(asked, found.indices),
        found=neighbors.pixels(gallery, np.asarray([[place_of[file] for file in row] for row in files])),
        scores=matches.scores,
        query_names=[pathlib.Path(_paths(asked)[i]).name for i in found.indices],
        found_names=[[os.path.join(*pathlib.Path(str(name)).parts[-2:]) for name in row] for row in matches.ids],
        accepted=matches.accepted,
        probabilities=matches.probabilities,
    )


def open_index(
    place: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None
) -> "tuple[Index, Run, retrieval.Decision | None]":
    """Open an index, the run whose model made it, and the decision of the index or else of the run.

    Args:
        place: The index's folder.
        directory: The run. Defaults to None: as the index noted.

    Returns:
        The index, the `training.Run`, and a `retrieval.Decision` or None.

    Raises:
        ValueError: If the index is damaged, or its run is not known or not where it was.
    """
    from tf_detreg import training
    from tf_detreg.index import Index

    index = Index.load(place)
    if not directory:
        noted = index.metadata(index.ids[0]).get("run")
        directory = None if noted is None else str(noted)
    if directory is None:
        raise ValueError(f"The index {str(place)!r} does not say which run made it: give run=… (--run).")
    if not (pathlib.Path(directory) / "config.json").is_file():
        raise ValueError(
            f"The run {str(directory)!r}, whose model made the index {str(place)!r}, is not there. Give its "
            "directory of today: run=… (--run)."
        )
    run = training.load_run(directory)
    return index, run, index.decision or decision_of(directory)

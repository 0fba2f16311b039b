"""From image files and tables about them to an index, and from an index to a later state of it."""

import collections
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_detreg import retrieval
from tf_detreg.image_files import image_files, item_metadata, unlabeled
from tf_detreg.item_table import Item, read_items
from tf_detreg.retrieval.decision import decision_of

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet
    from tf_detreg.index import Index, Shards
    from tf_detreg.index.refreshing import Refreshed
    from tf_detreg.training import Run

logger = logging.getLogger(__name__)
_PART = 1_024  # images that are added in one transaction


@dataclasses.dataclass(frozen=True)
class Listed:
    """Files that are to be items of an index.

    Args:
        images: The files, an unlabeled `ImageSet`.
        ids: The id of each.
        metadata: What is known about each.
        skipped: How many files of folders are no images.
    """

    images: "ImageSet"
    ids: list[str]
    metadata: list[dict[str, object]]
    skipped: int = 0

    def subset(self, rows: Sequence[int] | np.ndarray) -> "Listed":
        """Return some of them."""
        chosen = self.images.subset(np.asarray(rows, np.int64))
        return Listed(chosen, [self.ids[row] for row in rows], [self.metadata[row] for row in rows], self.skipped)


def list_files(
    run: "Run", images: Sequence[str | os.PathLike[str]], table: str | os.PathLike[str] | None = None
) -> Listed:
    """Return image files with their ids and metadata.

    Args:
        run: Of the model that is to embed them.
        images: Image files, or folders of them: an item's id is its file, and where folders are classes it has a
            `label`.
        table: A CSV file of more files, or of metadata of the same ones; see `item_table.read_items`. Default: none.

    Returns:
        The files; `metadata` say also where file and run are.

    Raises:
        ValueError: If there is no file.
    """
    listed = {} if table is None else {item.file: item for item in _there(table)}
    if not images and not listed:
        raise ValueError("Give image files, folders of them, or a table (--csv).")
    files = image_files([*images, *listed], run.embedder)
    paths = files.paths or []
    # A table may name a file that a folder holds too, by another spelling: the table's row counts.
    by_place = {os.path.realpath(file): item for file, item in listed.items()}
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        first.setdefault(os.path.realpath(path), row)
    rows = list(first.values())
    names = [paths[row] for row in rows]
    where = str(pathlib.Path(run.directory).resolve())
    ids, metadata = [], []
    for name, facts in zip(names, item_metadata(names, images), strict=True):
        item = by_place.get(os.path.realpath(name))
        ids.append(name if item is None else item.id)
        metadata.append({**facts, "run": where, **({} if item is None else item.metadata)})
    ((id, times),) = collections.Counter(ids).most_common(1)
    if times > 1:
        raise ValueError(f"{times} files have the id {id!r}. Give each its own in the table's column `id`.")
    return Listed(files.subset(np.asarray(rows, np.int64)), ids, metadata, len(files.skipped))


def _there(table: str | os.PathLike[str]) -> list[Item]:
    """Return the rows of a table whose files are there; the log names the others."""
    items = read_items(table)
    missing = [item.file for item in items if not os.path.isfile(item.file)]
    if len(missing) == len(items):
        raise ValueError(f"{table}: not one of its {len(items)} files is there, such as {missing[0]!r}.")
    if missing:
        shown = ", ".join(map(ascii, missing[:5])) + ("" if len(missing) <= 5 else ", …")
        logger.warning("%s: %d of %d files are not there: %s", table, len(missing), len(items), shown)
    return [item for item in items if os.path.isfile(item.file)]


def index_files(
    directory: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    table: str | os.PathLike[str] | None = None,
) -> "Index":
    """Return an `index.Index` of image files, embedded by a run's model.

    Args:
        directory: The run.
        images: Image files, or folders of them; those that cannot be read are left out and named in the log.
        table: A CSV file of files and their metadata; see `item_table.read_items`. Default: none.

    Returns:
        The index: each item's id is its file, or what the table's column `id` says; its metadata say where file and run
        are, what the table has and, for a file in a folder inside a given one, its `label`: that inner folder's name.
    """
    from tf_detreg import training
    from tf_detreg.index import Index
    from tf_detreg.serving.gallery import MOST_NEIGHBORS

    run = training.load_run(directory)
    listed = list_files(run, images, table)
    found = training.embed(run.embedder, listed.images, progress=None)
    chosen = listed.subset(found.indices)
    made = Index(found.embeddings, chosen.ids, chosen.metadata, retrieval.fingerprint(run.embedder))
    made.decision = decision_of(directory)
    made.tune(min(MOST_NEIGHBORS, len(made)))  # a large catalog keeps its tree, as deep as the server asks
    return made


@dataclasses.dataclass(frozen=True)
class Added:
    """What `add_files` did.

    Args:
        added: How many items are new.
        replaced: How many were replaced.
        known: How many files were passed over, as they are in the index.
        unreadable: How many files could not be read.
    """

    added: int
    replaced: int
    known: int
    unreadable: int


def add_files(
    place: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    table: str | os.PathLike[str] | None = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    replace: bool = False,
) -> Added:
    """Add image files to an index, some in each transaction: what is killed is started again and goes on.

    Args:
        place: The index's folder, or a folder of its shards: each item then goes to the shard that its id says.
        images: Image files, or folders of them.
        table: A CSV file of files and their metadata; see `item_table.read_items`. Default: none.
        directory: The run whose model made the index. Default: as the index noted.
        replace: Whether files that are in the index are embedded again, and their metadata replaced. Default False:
            they are passed over.

    Returns:
        What was done.

    Raises:
        ValueError: If the index was made by another model, or there is no file.
    """
    index, run, _ = open_catalog(place, directory)
    with index:
        made_by = retrieval.fingerprint(run.embedder)
        index.refuse_other_model(made_by)
        listed = list_files(run, images, table)
        known = 0
        if not replace:
            paths = {item.get("path") for item in index.rows()}
            there = [
                facts["path"] in paths or id in index for id, facts in zip(listed.ids, listed.metadata, strict=True)
            ]
            known = sum(there)
            listed = listed.subset([row for row, is_there in enumerate(there) if not is_there])
        added = replaced = 0
        for vectors, rows in _in_parts(run, listed.images):
            part = listed.subset(rows)
            # Embedding takes minutes, in which somebody may move the index to another model.
            old = index.upsert(vectors, part.ids, part.metadata, made_by)
            added, replaced = added + len(rows) - old, replaced + old
    return Added(added, replaced, known, len(listed.ids) - added - replaced + listed.skipped)


def refresh_index(
    place: str | os.PathLike[str], directory: str | os.PathLike[str], limit: float = 0.1
) -> "Refreshed | None":
    """Embed the images of an index again by the model of another run, and switch to it in one step.

    Searches go on meanwhile, with the old model. Items whose files are gone or cannot be read are mapped from their old
    vectors, as `Index.refresh` does, or the refresh is refused. A decision of the new run comes along.

    Args:
        place: The index's folder.
        directory: The run.
        limit: The largest share of the 10 nearest neighbors that mapping may lose. Default 0.1.

    Returns:
        What was done; None where the index is of this model already.

    Raises:
        ValueError: If mapping loses more than that, or too few files are left to fit it; nothing is changed then.
    """
    from tf_detreg import training
    from tf_detreg.index import Index
    from tf_detreg.serving.gallery import MOST_NEIGHBORS

    run = training.load_run(directory)
    made_by = retrieval.fingerprint(run.embedder)
    with Index.load(place) as index:
        if index.fingerprint is not None and retrieval.same_model(index.fingerprint, made_by):
            return None
        vectors: dict[str | int, np.ndarray] = {}
        mark, ids = index.added_since()
        while ids:  # others may add items while these are embedded
            files = {id: str(index.metadata(id).get("path", id)) for id in ids if id in index}
            there = {id: file for id, file in files.items() if os.path.isfile(file)}
            if there:
                images = unlabeled(list(there.values()), run.embedder)
                names = list(there)
                for some, rows in _in_parts(run, images):
                    vectors |= {names[row]: vector for row, vector in zip(rows, some, strict=True)}
            mark, ids = index.added_since(mark)
        if not vectors:
            raise ValueError(f"Not one file of the index {str(place)!r} can be read: there is nothing to embed again.")
        note = {"run": str(pathlib.Path(directory).resolve())}
        done = index.refresh(np.stack(list(vectors.values())), list(vectors), made_by, limit=limit, note=note)
        index.decision = decision_of(directory)
        index.tune(min(MOST_NEIGHBORS, len(index)))  # as deep as the server asks, so that no request waits for it
    return done


def _in_parts(run: "Run", images: "ImageSet") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embed images; yield embeddings and indices of about a thousand at a time."""
    from tf_detreg.retrieval.embedding import embed_parts

    vectors, indices = [], []
    for some, rows in embed_parts(run.embedder, images, progress=None):
        vectors.append(some)
        indices.append(rows)
        if sum(map(len, indices)) >= _PART:
            yield np.concatenate(vectors), np.concatenate(indices)
            vectors, indices = [], []
    if indices:
        yield np.concatenate(vectors), np.concatenate(indices)


def open_index(
    place: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None
) -> "tuple[Index, Run, retrieval.Decision | None]":
    """Open an index, the run whose model made it, and the decision of the index or else of the run.

    Args:
        place: The index's folder.
        directory: The run. Default None: as the index noted.

    Returns:
        The index, the `training.Run`, and a `retrieval.Decision` or None.

    Raises:
        ValueError: If the index is damaged, or its run is not known or not where it was.
    """
    from tf_detreg.index import Index

    index = Index.load(place)
    return index, *_made_by(index, place, directory)


def open_catalog(
    place: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None
) -> "tuple[Index | Shards, Run, retrieval.Decision | None]":
    """Open an index, or all shards of one that lie in a folder; as `open_index`."""
    from tf_detreg.index import sharding

    catalog = sharding.load(place)
    return catalog, *_made_by(catalog, place, directory)


def _made_by(
    index: "Index | Shards", place: str | os.PathLike[str], directory: str | os.PathLike[str] | None
) -> "tuple[Run, retrieval.Decision | None]":
    """Return the run whose model made an index, and the decision of the index or else of the run."""
    from tf_detreg import training

    if not directory:
        noted = next(index.rows(), {}).get("run")
        directory = None if noted is None else str(noted)
    if directory is None:
        raise ValueError(f"The index {str(place)!r} does not say which run made it: give run=… (--run).")
    if not (pathlib.Path(directory) / "config.json").is_file():
        raise ValueError(
            f"The run {str(directory)!r}, whose model made the index {str(place)!r}, is not there. Give its "
            "directory of today: run=… (--run)."
        )
    run = training.load_run(directory)
    return run, index.decision or decision_of(directory)

"""Shards that a split is writing: begun by this process, or by one that was stopped and whose work goes on here."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tf_detreg import checks
from tf_detreg.files import move_new, sync, sync_entry
from tf_detreg.index import segments, shard_folders
from tf_detreg.index.index import Index
from tf_detreg.index.items import Id, metadata_texts, plain_ids
from tf_detreg.retrieval import inputs
from tf_detreg.retrieval.identity import same_model
from tf_detreg.workspaces import alone_in

logger = logging.getLogger(__name__)
ENDING = ".part"
"""Ends the name of the folder in which a split writes until all of it is there."""


@contextlib.contextmanager
def named_when_whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a folder beside another one, as a stopped process left it; it gets the name when the block ends well.

    Args:
        folder: The name. What bears it may only be an empty folder, which is replaced in the end: neither a link nor a
            mount point.

    Yields:
        The folder, which this process alone writes in.

    Raises:
        ValueError: If the name is taken.
        OSError: If nothing can be written there.
    """
    _refuse_taken(folder)
    work = folder.with_name(folder.name + ENDING)
    work.mkdir(parents=True, exist_ok=True)
    try:
        with alone_in(work):
            _refuse_taken(folder)  # another process may have ended while this one waited for it
            yield work
            sync(work)
            if folder.exists():
                folder.rmdir()
            move_new(work, folder)
            sync_entry(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            work.rmdir()  # where nothing was written
        raise


def _refuse_taken(folder: pathlib.Path) -> None:
    if not folder.name:
        raise checks.invalid("output", "name a new folder", repr(str(folder)), "Give its name, such as `shards`.")
    if folder.is_symlink() or os.path.ismount(folder):
        raise checks.invalid(
            "output",
            "be a new folder, or an empty one that can be replaced",
            f"{str(folder)!r}, which is a link or a mount point",
            "Give a folder inside it.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"`output` must be a new folder, or an empty one; received {str(folder)!r}, which is neither.")


class Part:
    """A shard that is being filled, from its first item on.

    Args:
        index: The shard, with what a stopped process left in it.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._kept, self._seen = len(index), 0

    def compare(self, ids: Sequence[Id], vectors: np.ndarray, metadata: Sequence[Mapping[str, object]]) -> None:
        """Compare the next items of the source with those that are there already.

        Raises:
            ValueError: If they differ: the shard was made of another source.
        """
        there = self._there(len(ids))
        if there:
            self._compare(ids[:there], vectors[:there], metadata[:there])

    def put(self, ids: Sequence[Id], vectors: np.ndarray, metadata: Sequence[Mapping[str, object]]) -> None:
        """Add the next items of the source, but for those that are there already."""
        there = self._there(len(ids))
        if there < len(ids):
            self.index.add(vectors[there:], ids[there:], metadata[there:])
        self._seen += len(ids)

    def _there(self, count: int) -> int:
        """Return how many of the next items are there already."""
        return min(count, max(0, self._kept - self._seen))

    def end(self) -> None:
        """Raise where the source has ended before the items that are there.

        Raises:
            ValueError: If so: the shard was made of another source.
        """
        if self._seen < self._kept:
            raise self._other(f"{self._kept - self._seen:,} items fewer")

    def _compare(self, ids: Sequence[Id], vectors: np.ndarray, metadata: Sequence[Mapping[str, object]]) -> None:
        rows = np.arange(self._seen, self._seen + len(ids))
        there = self.index._store.items(rows) or {}
        given = zip(plain_ids(ids), map(json.loads, metadata_texts(metadata, len(ids))), strict=True)
        for row, item in zip(rows.tolist(), given, strict=True):
            if there.get(row) != item:
                raise self._other(f"another item where it had {there[row][0]!r}" if row in there else "other items")
        kept = segments.take(self.index._store.snapshot().parts, rows)
        differs = np.flatnonzero((kept != inputs.unit_rows(vectors, "embeddings")[0]).any(axis=1))
        if len(differs):
            raise self._other(f"another vector of {ids[int(differs[0])]!r}")

    def _other(self, what: str) -> ValueError:
        work = str((self.index._store.directory or pathlib.Path()).parent)
        return ValueError(
            f"`source` must be the one that the stopped split in {work!r} was made of; received one with {what}. "
            "Remove that folder, and the split begins anew."
        )


@contextlib.contextmanager
def opened(
    places: Sequence[pathlib.Path],
    dimension: int,
    fingerprint: str | None,
    fields: Sequence[str],
    progress: bool | None,
) -> Iterator[list[Part]]:
    """Yield the shards, those that were begun before and new ones; they are closed when the block ends.

    What was begun is compared with its checksums; a damaged shard begins anew.

    Args:
        places: The directories of the shards.
        dimension: Of the vectors.
        fingerprint: Of the model.
        fields: Of the metadata, on which filters are to be quick.
        progress: Whether to show progress where much is compared; None shows it in a terminal.

    Raises:
        ValueError: If those that were begun are of another number of shards, another model, or have other fields.
    """
    work = places[0].parent
    if {path.name for path in shard_folders.present(work)} - {place.name for place in places}:
        before = int(shard_folders.present(work)[0].name[-5:])
        raise _refused(work, "shards", str(before), str(len(places)))
    with contextlib.ExitStack() as stack:
        parts = []
        for place in places:
            index = _begun(place, progress)
            if index is None:
                index = Index.create(place, dimension, fingerprint)
                if fields:
                    index.index_field(*fields)
            stack.callback(index.close)
            known = index.fingerprint
            same = known is not None and fingerprint is not None and same_model(known, fingerprint)
            for name, before, now in (
                ("dimension", index.dimension, dimension),
                ("fingerprint", known, known if same else fingerprint),
                ("fields", sorted(index.fields), sorted(fields)),
            ):
                if before != now:
                    raise _refused(work, name, repr(before), repr(now))
            parts.append(Part(index))
        yield parts


def _begun(place: pathlib.Path, progress: bool | None) -> Index | None:
    """Return a shard that was begun before, and is whole as far as it goes; None where there is none."""
    if not place.exists():
        return None
    index = None
    try:
        index = Index.load(place)
        if len(index):
            index.verify(progress)
            return index
    except ValueError as error:
        logger.warning("%s This shard of a stopped split begins anew.", error)
    if index is not None:
        index.close()
    shutil.rmtree(place)
    return None


def _refused(work: pathlib.Path, argument: str, before: str, now: str) -> ValueError:
    return ValueError(
        f"`{argument}` must be {before}, as in the split that was stopped in {str(work)!r}; received {now}. Remove "
        "that folder, and the split begins anew."
    )

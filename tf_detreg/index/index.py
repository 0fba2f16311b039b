"""A gallery that answers queries and changes: add, replace, remove, filter, save."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from tf_detreg import checks, deprecated
from tf_detreg.files import check_file, replacing
from tf_detreg.index import changes, segments, shard_folders, trees, version_1
from tf_detreg.index.change import Change
from tf_detreg.index.filters import Where, parse
from tf_detreg.index.items import Id, bound, crc_of, metadata_texts, not_there, plain_ids
from tf_detreg.index.store import FILE, Store
from tf_detreg.index.upkeep import Upkeep
from tf_detreg.retrieval import inputs, parquet
from tf_detreg.retrieval.decision import Decision


class Index(Upkeep):
    """Embeddings with ids and metadata: build, search, change, save, load.

    Scores are cosines. An index on disk is a directory: ids and metadata in SQLite, vectors in files that are mapped
    when they are read. A change is one transaction: a reader sees the state before it or after it, and a process that
    is killed loses only the change that it was making. Opening an index reads neither items nor vectors.

    Args:
        embeddings: (N, dim) vectors; they are normalized if they are not of length one.
        ids: N different strings or integers. Default: 0 … N-1.
        metadata: N mappings that JSON can hold, such as `{"label": "daisy", "path": "1.jpg"}`. Default: empty ones.
        fingerprint: What identifies the model, as `retrieval.fingerprint` makes it. Default: unknown. A query with
            another model's is refused.

    Raises:
        ValueError: If vectors are not finite or are zero, ids repeat, or lengths do not fit.

    Example:
        >>> index = Index([[1.0, 0.0], [0.0, 1.0]], ids=["east", "north"], metadata=[{"land": 1}, {"land": 2}])
        >>> index.search([[0.9, 0.1]], k=1).ids
        [['east']]
        >>> index.search([[0.9, 0.1]], k=1, where="land > 1").ids
        [['north']]
        >>> index.upsert([[0.0, -1.0], [-1.0, 0.0]], ["north", "west"])
        1
        >>> index.remove(["east"])
        1
        >>> list(index)
        ['north', 'west']
    """

    def __init__(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id] | None = None,
        metadata: Sequence[Mapping[str, object]] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        vectors, _ = inputs.unit_rows(embeddings, "embeddings")
        self._use(Store(None, vectors.shape[1]))
        with self._store.changing() as change:
            change.set("model", fingerprint)
            changes.append(change, vectors, ids, metadata, replace=False)

    @classmethod
    @deprecated.renamed_arguments(path="directory")
    def create(cls, directory: str | os.PathLike[str], dimension: int, fingerprint: str | None = None) -> "Index":
        """Make an empty index on disk, to be filled by `add` in parts of any size.

        Args:
            directory: A directory that does not exist yet, or is empty.
            dimension: Of the vectors.
            fingerprint: Of the model. Default: unknown.

        Raises:
            ValueError: If `directory` exists and is not empty, or `dimension` is not a positive integer.
            OSError: If it cannot be written.
        """
        checks.integer("dimension", dimension, 1)
        path = pathlib.Path(directory)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(
                f"`directory`={str(path)!r} exists and is not empty. Choose another directory, or remove it."
            )
        index = cls.__new__(cls)
        index._use(Store(path, dimension))
        with index._store.changing() as change:
            change.set("model", fingerprint)
        return index

    @classmethod
    @deprecated.renamed_arguments(path="directory")
    def load(cls, directory: str | os.PathLike[str], *, verify: bool = False) -> "Index":
        """Open an index on disk. What is changed afterwards is changed on disk.

        An index of version 0.1 is read into memory instead; `save` writes it in today's form.

        Args:
            directory: The directory.
            verify: Whether to read all of it once, as the method `verify` does. Default False.

        Raises:
            ValueError: If it is not an index, is damaged, or was written by a newer version.
        """
        path = pathlib.Path(directory)
        if not (path / FILE).is_file() and (shards := shard_folders.present(path)):
            raise ValueError(
                f"`directory`={str(path)!r} holds {len(shards)} shards of an index. `tf-detreg search`, `serve`, "
                "`calibrate`, `monitor`, `index add`, `remove`, `list`, `verify` and `Shards.load` take them all. One "
                f"of them, such as {str(shards[0])!r}, "
                "is an index too; which one an item belongs to, `Shards.load(…).shard_of(id)` says."
            )
        if not (path / FILE).is_file() and (path / version_1.MANIFEST).is_file():
            old = version_1.read(path)
            return cls(old.vectors, old.ids, old.metadata, old.fingerprint)
        index = cls.__new__(cls)
        index._use(Store(path))
        index._store.snapshot()
        if verify:
            index.verify()
        return index

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> "Index":
        """Make an index, in memory, of Parquet files that `to_parquet`, `tf-detreg embed` or others wrote.

        A folder stands for all `*.parquet` in it. Needed are the columns `id` (text) and `vector` (a list of fixed
        length).

        Raises:
            ImportError: Without pyarrow.
            ValueError: If it holds something else.
        """
        found = parquet.read(path)
        return cls(found.embeddings, found.ids, found.metadata, found.fingerprint)

    @deprecated.renamed_arguments(path="directory")
    def save(self, directory: str | os.PathLike[str]) -> pathlib.Path:
        """Write the index to a directory; a reader finds the old one or the new one, whole.

        Args:
            directory: The directory. An index that is there is replaced; anything else is refused. The directory of the
                index itself holds every change already.

        Returns:
            The path.

        Raises:
            ValueError: If `directory` exists and is not an index.
            OSError: If it cannot be written.
        """
        path = pathlib.Path(directory)
        if self._store.directory is not None and path.exists() and path.samefile(self._store.directory):
            return path
        self.check_directory(path)
        if (path / FILE).is_file():
            with Index.load(path) as target:
                target._take_over(self)
            return path
        with replacing(path) as temporary, Index.create(temporary, self.dimension) as target:
            target._take_over(self)
        return path

    check_place = deprecated.RenamedAttribute("check_directory")

    @staticmethod
    @deprecated.renamed_arguments(path="directory")
    def check_directory(directory: str | os.PathLike[str]) -> None:
        """Raise now, before hours of embedding, what `save` would raise in the end.

        Raises:
            ValueError: If `directory` exists and is not an index.
            OSError: If nothing can be written there.
        """
        path = pathlib.Path(directory)
        if any((path / name).is_file() for name in (FILE, version_1.MANIFEST)):
            return
        if path.exists():
            raise ValueError(
                f"`directory`={str(path)!r} exists and is not an index. Choose another directory, or remove it."
            )
        check_file(path)

    @property
    def decision(self) -> Decision | None:
        """Return from which score on a match counts; None where every match does. Setting it writes it to disk."""
        return self._decider.decision

    @decision.setter
    def decision(self, decision: Decision | None) -> None:
        self._decider.keep(decision)

    def add(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id] | None = None,
        metadata: Sequence[Mapping[str, object]] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Add items, in one transaction; arguments as for the class. Ids default to the next integers.

        Raises:
            ValueError: If the new items do not fit or their ids are taken; nothing is added then.
        """
        self._put(embeddings, ids, metadata, fingerprint, replace=False)

    def upsert(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id],
        metadata: Sequence[Mapping[str, object]] | None = None,
        fingerprint: str | None = None,
    ) -> int:
        """Add items, and replace those whose ids are there, in one transaction.

        Returns:
            How many were replaced.

        Raises:
            ValueError: If the items do not fit; nothing is changed then.
        """
        return self._put(embeddings, ids, metadata, fingerprint, replace=True)

    def remove(self, ids: Sequence[Id] | None = None, *, where: Where | None = None) -> int:
        """Remove items by their ids or by a filter, in one transaction.

        Args:
            ids: Which. Ids that are not in the index are an error.
            where: A filter as for `search`. Give one of the two.

        Returns:
            How many were removed.

        Raises:
            ValueError: If an id is not in the index, or both or neither are given; nothing is removed then.
        """
        if (ids is None) == (where is None):
            raise ValueError("`ids` must be given, or `where`; received both or neither: give either `ids` or `where`.")
        with self._store.changing() as change:
            rows = change.rows_where(parse(where)) if where is not None else _rows_of(change, plain_ids(ids or []))
            change.remove(rows)
        return len(rows)

    def update_metadata(self, id: Id, changed: Mapping[str, object]) -> None:
        """Change fields of an item's metadata; a field that is set to None is removed.

        Raises:
            ValueError: If there is none of this id, or JSON cannot hold the values.
        """
        (new,) = metadata_texts([changed], 1)
        with self._store.changing() as change:
            (row,) = _rows_of(change, plain_ids([id]))
            known, facts = (self._store.items([row]) or {})[row]
            kept = {key: value for key, value in {**facts, **json.loads(new)}.items() if value is not None}
            text = json.dumps(kept)
            sql = "UPDATE items SET metadata = ?, crc = ? WHERE row = ?"
            change.connection.execute(sql, (text, crc_of(bound(known), text), row))

    def merge(self, other: "Index", *, replace: bool = False) -> None:
        """Add all items of another index, in one transaction.

        Args:
            other: Of the same model.
            replace: Whether an item of `other` replaces one of the same id; else that is an error. Default False.

        Raises:
            ValueError: If models or dimensions differ, or ids are taken; nothing is added then.
        """
        if other is self:
            raise ValueError("`other` must be another index; received this one.")
        self._check(other.dimension, "other", other.fingerprint)
        with other._store.holding(), self._store.changing() as change:
            for rows, vectors in segments.live_blocks(other._store.snapshot().parts):
                items = other._store.items(rows) or {}
                ids, metadata = zip(*(items[int(row)] for row in rows), strict=True)
                changes.append(change, vectors, ids, metadata, replace=replace)
            changes.merge_small(change)

    def _put(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id] | None,
        metadata: Sequence[Mapping[str, object]] | None,
        fingerprint: str | None,
        replace: bool,
    ) -> int:
        vectors, _ = inputs.unit_rows(embeddings, "embeddings")
        self._check(vectors.shape[1], "embeddings", fingerprint)
        with self._store.changing() as change:
            replaced = changes.append(change, vectors, ids, metadata, replace)
            changes.merge_small(change)
        return replaced

    def _take_over(self, other: "Index") -> None:
        """Take over everything of another index, in one transaction, and its tree where it sorts the same vectors."""
        with other._store.holding():
            state = other._store.snapshot()
            with self._store.changing() as change:
                changes.copy(change, other._store)
        self._tuner.forget()
        if len(state.parts) == 1 and state.live == state.parts[0].count:
            tuned = other._tuner.present(state)
            if tuned is not None and state.tree is not None:
                engine, layout = trees.engine_of(state.tree), other._tuner.layout(state)
                self._tuner.keep(engine, tuned, layout=layout, target=state.tree.get("target"))


def _rows_of(change: Change, ids: list[Id]) -> list[int]:
    found = change.present(ids)
    missing = [id for id in ids if id not in found]
    if missing:
        raise not_there(missing[0])
    return list(found.values())

"""A gallery that answers queries and changes: add, replace, remove, filter, save."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from numpy.typing import ArrayLike

from tf_detreg import checks, deprecated
from tf_detreg.files import check_file, replacing
from tf_detreg.index import changes, searching, segments, trees, version_1
from tf_detreg.index.catalog import Catalog, Where
from tf_detreg.index.change import Change
from tf_detreg.index.filters import parse
from tf_detreg.index.items import Id, bound, crc_of, metadata_texts, not_there, plain_ids
from tf_detreg.index.store import FILE, Store
from tf_detreg.retrieval import approximate, codes, inputs, parquet
from tf_detreg.retrieval.decision import Decision


class Compression(NamedTuple):
    """How an index is compressed.

    Args:
        kind: `"float16"`, `"int8"` or `"binary"`.
        dimensions: How many are kept.
        bytes_an_item: What an item takes in memory; its vector stays on disk.
        rescored: Candidates that are scored by the vectors on disk.
        recall: Measured share of the true neighbors that a search finds.
    """

    kind: str
    dimensions: int
    bytes_an_item: float
    rescored: int
    recall: float


class Index(Catalog):
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
    def create(cls, path: str | os.PathLike[str], dimension: int, fingerprint: str | None = None) -> "Index":
        """Make an empty index on disk, to be filled by `add` in parts of any size.

        Args:
            path: A directory that does not exist yet, or is empty.
            dimension: Of the vectors.
            fingerprint: Of the model. Default: unknown.

        Raises:
            ValueError: If `path` exists and is not empty, or `dimension` is not a positive integer.
            OSError: If it cannot be written.
        """
        if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
            raise ValueError(f"`dimension` must be a positive integer; received {dimension!r}.")
        path = pathlib.Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"`path`={str(path)!r} exists and is not empty. Choose another directory, or remove it.")
        index = cls.__new__(cls)
        index._use(Store(path, dimension))
        with index._store.changing() as change:
            change.set("model", fingerprint)
        return index

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = False) -> "Index":
        """Open an index on disk. What is changed afterwards is changed on disk.

        An index of version 0.1 is read into memory instead; `save` writes it in today's form.

        Args:
            path: The directory.
            verify: Whether to read all of it once, as the method `verify` does. Default False.

        Raises:
            ValueError: If it is not an index, is damaged, or was written by a newer version.
        """
        path = pathlib.Path(path)
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

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the index to a directory; a reader finds the old one or the new one, whole.

        Args:
            path: The directory. An index that is there is replaced; anything else is refused. The directory of the
                index itself holds every change already.

        Returns:
            The path.

        Raises:
            ValueError: If `path` exists and is not an index.
            OSError: If it cannot be written.
        """
        path = pathlib.Path(path)
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
    def check_directory(path: str | os.PathLike[str]) -> None:
        """Raise now, before hours of embedding, what `save` would raise in the end.

        Raises:
            ValueError: If `path` exists and is not an index.
            OSError: If nothing can be written there.
        """
        path = pathlib.Path(path)
        if any((path / name).is_file() for name in (FILE, version_1.MANIFEST)):
            return
        if path.exists():
            raise ValueError(
                f"`path`={str(path)!r} exists and is not an index. Choose another directory, or remove it."
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

    def index_field(self, *fields: str) -> None:
        """Make filters on fields of the metadata quick, for the items that are there and those to come.

        Raises:
            ValueError: If a name cannot be one.
        """
        with self._store.changing() as change:
            change.index_fields(fields)

    def compact(self, progress: bool | None = None) -> None:
        """Rewrite the vectors in one piece without those that were removed, and build the tree again if there was one.

        Args:
            progress: Whether to show progress; None shows it in a terminal.
        """
        state = self._store.snapshot()
        if len(state.parts) == 1 and state.live == state.parts[0].count:
            return
        layout = self._tuner.layout(state)
        with self._store.changing() as change:
            changes.compact(change, progress)
        self._tuner.forget()
        if state.tree is None:
            return
        depth = min(int(state.tree["depth"]), len(self))
        if layout is not None and len(self) >= approximate.SMALLEST_GALLERY:
            self._tuner.compress(layout, depth, float(state.tree["target"]), progress)
        elif layout is None and len(self) >= searching.SCANN_FROM:
            self.tune(depth, progress, trees.engine_of(state.tree))

    def compress(
        self,
        kind: str = "int8",
        dimensions: int | None = None,
        *,
        k: int = 10,
        target: float = 0.99,
        progress: bool | None = None,
    ) -> Compression:
        """Search in a compressed copy of the vectors, so that only candidates are read from disk.

        The copy takes the place of a search tree: it is kept with the index, new items are searched exactly beside it,
        and `compact` compresses again. It looks at every item, so that it saves memory, not time.

        Args:
            kind: `"float16"`, `"int8"`, the default, or `"binary"`: 2, 1 or 1/8 bytes a dimension in place of 4; see
                `retrieval.codes`.
            dimensions: Project to so many principal axes first. Default: keep all.
            k: The deepest search that it is meant for. Default 10.
            target: Share of the true neighbors to find. Default 0.99.
            progress: Whether to show progress. None, the default, shows it in a terminal.

        Returns:
            The measured recall and the bytes that an item takes in memory.

        Raises:
            ValueError: If an argument is out of range, or there are fewer than 1,000 items.

        Example:
            >>> import numpy as np
            >>> index = Index(np.random.default_rng(0).standard_normal((2000, 16)))
            >>> done = index.compress("int8", progress=False)
            >>> done.bytes_an_item, done.recall >= 0.99
            (16.0, True)
        """
        layout = codes.Layout(kind, dimensions).checked(self.dimension)
        target = checks.within("target", target, 0, 1, "(]")
        (k,) = inputs.ranks_at(k, len(self))
        if len(self) < approximate.SMALLEST_GALLERY:
            raise ValueError(f"{len(self)} items are too few to be compressed: {approximate.SMALLEST_GALLERY} or more.")
        tuned = self._tuner.compress(layout, k, target, progress)
        made = checks.instance("layout", tuned.tree, codes.Codes, "one that compresses")
        return Compression(kind, dimensions or self.dimension, made.bytes_an_item, made.rescored, tuned.recall)

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
                self._tuner.keep(trees.engine_of(state.tree), tuned, state.tree.get("target"))


def _rows_of(change: Change, ids: list[Id]) -> list[int]:
    found = change.present(ids)
    missing = [id for id in ids if id not in found]
    if missing:
        raise not_there(missing[0])
    return list(found.values())

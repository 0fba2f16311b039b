"""A gallery that answers queries and changes: add, replace, remove, filter, save."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg.files import check_file, replacing
from tf_detreg.index import changes, decisions, integrity, searching, segments, version_1
from tf_detreg.index.filters import parse
from tf_detreg.index.items import Id, bound, crc_of, is_id, metadata_texts, plain_ids, unbound
from tf_detreg.index.store import FILE, Change, Store
from tf_detreg.index.tuning import Tuner
from tf_detreg.retrieval import approximate, checks, deciding
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.identity import same_model, short
from tf_detreg.retrieval.matches import Matches

Where = Mapping[str, object] | str


class Index:
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
    ):
        vectors, _ = checks.unit_rows(embeddings, "embeddings")
        self._use(Store(None, vectors.shape[1]))
        with self._store.changing() as change:
            change.set("model", fingerprint)
            changes.append(change, vectors, ids, metadata, replace=False)

    def _use(self, store: Store) -> None:
        self._store = store
        self._tuner = Tuner(store)
        self._decider = decisions.Decider(store, searching.Searcher(store, self._tuner))

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
            raise ValueError(f"path={str(path)!r} exists and is not empty. Choose another directory, or remove it.")
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
        self.check_place(path)
        if (path / FILE).is_file():
            with Index.load(path) as target:
                target._take_over(self)
            return path
        with replacing(path) as temporary, Index.create(temporary, self.dimension) as target:
            target._take_over(self)
        return path

    @staticmethod
    def check_place(path: str | os.PathLike[str]) -> None:
        """Raise now, before hours of embedding, what `save` would raise in the end.

        Raises:
            ValueError: If `path` exists and is not an index.
            OSError: If nothing can be written there.
        """
        path = pathlib.Path(path)
        if any((path / name).is_file() for name in (FILE, version_1.MANIFEST)):
            return
        if path.exists():
            raise ValueError(f"path={str(path)!r} exists and is not an index. Choose another directory, or remove it.")
        check_file(path)

    def verify(self) -> None:
        """Read everything once and compare it with its checksums.

        Raises:
            ValueError: If something is damaged.
        """
        integrity.verify(self._store)

    def close(self) -> None:
        """Close the files. A closed index can no longer be used."""
        self._store.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.snapshot().live

    def __repr__(self) -> str:
        return f"Index({len(self)} items, {self.dimension} dimensions, model {short(self.fingerprint or 'unknown')})"

    def __contains__(self, id: object) -> bool:
        return self._row(id) is not None

    def __iter__(self) -> Iterator[Id]:
        return iter(self.ids)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self._store.snapshot().facts["dimension"])

    @property
    def fingerprint(self) -> str | None:
        """What identifies the model; None where it is unknown."""
        return cast(str | None, self._store.snapshot().facts["model"])

    @property
    def decision(self) -> Decision | None:
        """From which score on a match counts; None where every match does. Setting it writes it into the index."""
        return self._decider.decision

    @decision.setter
    def decision(self, decision: Decision | None) -> None:
        self._decider.keep(decision)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the metadata on which filters are quick."""
        return self._store.snapshot().fields

    @property
    def ids(self) -> list[Id]:
        """All ids, in the order in which the items were added. Reads every item."""
        return [unbound(id) for (id,) in self._store.query("SELECT id FROM items ORDER BY row") or []]

    @property
    def embeddings(self) -> np.ndarray:
        """(N, dim) unit rows in the order of `ids`, read-only; mapped from disk where they lie in one piece."""
        parts = self._store.snapshot().parts
        if len(parts) == 1 and parts[0].live == parts[0].count:
            view = parts[0].vectors.view()
        else:
            blocks = [vectors for _, vectors in segments.live_blocks(parts)]
            view = np.concatenate(blocks) if blocks else np.empty((0, self.dimension), np.float32)
        view.flags.writeable = False
        return view

    def metadata(self, id: Id) -> dict[str, object]:
        """Return what is known about an item.

        Raises:
            ValueError: If there is none of this id.
        """
        row = self._row(id)
        found = None if row is None else (self._store.items([row]) or {}).get(row)
        if found is None:
            raise _not_there(id)
        return found[1]

    def rows(self, where: Where | None = None) -> Iterator[dict[str, object]]:
        """Iterate over the items as mappings `{"id": …, **metadata}`, in the order in which they were added.

        Args:
            where: Only items that this filter keeps; see `search`. Default: all.
        """
        for _, *item in self._store.stored(parse(where) if where else None):
            id, metadata = self._store.item(*item)
            yield {"id": id, **metadata}

    def _row(self, id: object) -> int | None:
        id = id.item() if isinstance(id, np.generic) else id
        if not is_id(id):
            return None
        found = self._store.query("SELECT row FROM items WHERE id = ?", [bound(cast(Id, id))])
        return int(found[0][0]) if found else None

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
            raise ValueError("Give either `ids` or `where`.")
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
            raise ValueError("`other` must be another index.")
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
        with self._store.changing() as change:
            changes.compact(change)
        self._tuner.forget()
        if state.tree is not None and len(self) >= searching.SCANN_FROM:
            self.tune(min(int(state.tree["depth"]), len(self)), progress)

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        where: Where | None = None,
        fingerprint: str | None = None,
        engine: str = "auto",
        progress: bool | None = None,
        decision: Decision | None = None,
    ) -> Matches:
        """Find the k nearest items of each query.

        Args:
            queries: (Q, dim), or (dim,) for one query.
            k: Default 10.
            where: Only items that this filter keeps: a mapping such as `{"label": ["mug", "cup"], "price": {"<": 20}}`,
                or text such as `label in ("mug", "cup") and price < 20`; see `tf_detreg.index.filters.parse`.
            fingerprint: Of the model that made the queries; refused if the index knows another one.
            engine: `"auto"`, the default: ScaNN from 50,000 items on, exact search otherwise and where a filter keeps
                few. Or `"exact"` or `"scann"`.
            progress: Whether to show a progress bar. None, the default, shows it in a terminal.
            decision: From which score on a match counts, as `retrieval.calibrate` finds it. Default: the index's own.

        Returns:
            A `Matches`; its `places` are positions among `ids` and `embeddings`. With a decision, `accepted` and
            `probabilities` are filled.

        Raises:
            ValueError: If queries do not fit, the model or the decision's is another one, or `k` is larger than what
                can be found.
        """
        asked = np.asarray(queries)
        vectors, _ = checks.unit_rows(asked[None] if asked.ndim == 1 else asked, "queries")
        self._check(vectors.shape[1], "queries", fingerprint)
        return self._decider.search(vectors, k, where, engine, progress, decision)

    def classify(
        self,
        queries: ArrayLike,
        k: int = 5,
        *,
        label: str = "label",
        where: Where | None = None,
        fingerprint: str | None = None,
        decision: Decision | None = None,
    ) -> deciding.Classified:
        """Give each query the class that most of its k nearest items have; none where a decision accepts none of them.

        Args:
            queries: (Q, dim), or (dim,) for one query.
            k: Default 5; the whole index where that is smaller.
            label: The metadata that names an item's class. Default `"label"`.
            where: As for `search`.
            fingerprint: As for `search`.
            decision: As for `search`.

        Returns:
            `labels`, `probabilities` and `votes` of the queries.

        Raises:
            ValueError: As `search`, and if an item has no such metadata.

        Example:
            >>> index = Index([[1, 0], [1, 0.1], [0, 1]], metadata=[{"label": "a"}, {"label": "a"}, {"label": "b"}])
            >>> index.classify([[1.0, 0.2]], k=3).labels
            ['a']
        """
        (k,) = checks.ranks_at(min(k, len(self)) if isinstance(k, int) else k, len(self))
        found = self.search(queries, k, where=where, fingerprint=fingerprint, progress=False, decision=decision)
        return deciding.vote(found, label)

    def tune(self, k: int = 10, progress: bool | None = None) -> float | None:
        """Build and tune the ScaNN tree now, so that it is kept and no search has to wait for it.

        Args:
            k: The deepest search that it is meant for. Default 10.
            progress: Whether to show a progress bar. None, the default, shows it in a terminal.

        Returns:
            The measured share of the true neighbors that it finds; None where exact search answers: below 50,000
            items, and where ScaNN cannot be installed.

        Raises:
            ValueError: If `k` is larger than the gallery.
        """
        state = self._store.snapshot()
        (k,) = checks.ranks_at(k, state.live)
        if state.live < searching.SCANN_FROM or approximate.available() is not None:
            return None
        return self._tuner.ready(state, k, progress)[0].recall

    def _put(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id] | None,
        metadata: Sequence[Mapping[str, object]] | None,
        fingerprint: str | None,
        replace: bool,
    ) -> int:
        vectors, _ = checks.unit_rows(embeddings, "embeddings")
        self._check(vectors.shape[1], "embeddings", fingerprint)
        with self._store.changing() as change:
            replaced = changes.append(change, vectors, ids, metadata, replace)
            changes.merge_small(change)
        return replaced

    def _take_over(self, other: "Index") -> None:
        """Takes over everything of another index, in one transaction, and its tree where it sorts the same vectors."""
        with other._store.holding():
            state = other._store.snapshot()
            with self._store.changing() as change:
                changes.copy(change, other._store)
        self._tuner.forget()
        if len(state.parts) == 1 and state.live == state.parts[0].count:
            tuned = other._tuner.present(state)
            if tuned is not None:
                self._tuner.keep(tuned)

    def _check(self, width: int, name: str, fingerprint: str | None) -> None:
        """Refuses vectors of another width, and another model."""
        if width != self.dimension:
            raise ValueError(
                f"`{name}` have {width} dimensions and the index has {self.dimension}. "
                "Embed them with the model that embedded the index."
            )
        known = self.fingerprint
        if fingerprint is not None and known is not None and not same_model(fingerprint, known):
            raise ValueError(
                f"`fingerprint`={short(fingerprint)!r}: the index was made by another model ({short(known)!r}). "
                "Build the index again with this model, or embed the queries with that one."
            )


def _rows_of(change: Change, ids: list[Id]) -> list[int]:
    found = change.present(ids)
    missing = [id for id in ids if id not in found]
    if missing:
        raise _not_there(missing[0])
    return list(found.values())


def _not_there(id: object) -> ValueError:
    return ValueError(f"`id`={id!r} is not in the index.")

"""What an index holds and finds: items, vectors, searches. Nothing here changes them."""

from collections.abc import Iterator
from typing import Self, cast

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.index import decisions, integrity, searching, segments, tables, trees
from tf_detreg.index.exports import Exports
from tf_detreg.index.filters import Where, parse
from tf_detreg.index.items import Id, bound, is_id, not_there, unbound
from tf_detreg.index.store import Store
from tf_detreg.index.tuning import Tuner
from tf_detreg.retrieval import deciding, inputs
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.identity import same_model, short
from tf_detreg.retrieval.matches import Matches


class Catalog(Exports):
    """The side of an index that reads; `Index` adds what changes it."""

    def _use(self, store: Store) -> None:
        self._store = store
        self._tuner = Tuner(store)
        self._searcher = searching.Searcher(store, self._tuner)
        self._decider = decisions.Decider(store, self._searcher)

    def verify(self, progress: bool | None = None) -> None:
        """Read everything once and compare it with its checksums.

        Args:
            progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

        Raises:
            ValueError: If something is damaged.
        """
        integrity.verify(self._store, progress)

    def close(self) -> None:
        """Close the files. A closed index can no longer be used."""
        self._store.close()

    def __enter__(self) -> Self:
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
        """Return the dimension of the vectors."""
        return int(self._store.snapshot().facts["dimension"])

    @property
    def fingerprint(self) -> str | None:
        """Return what identifies the model; None where it is unknown."""
        return cast(str | None, self._store.snapshot().facts["model"])

    @property
    def fields(self) -> tuple[str, ...]:
        """Return fields of the metadata on which filters are quick."""
        return self._store.snapshot().fields

    @property
    def ids(self) -> list[Id]:
        """Return all ids, in the order in which the items were added. Reads every item."""
        return [unbound(id) for (id,) in self._store.query("SELECT id FROM items ORDER BY row") or []]

    @property
    def embeddings(self) -> np.ndarray:
        """Return (N, dim) unit rows in the order of `ids`, read-only; mapped from disk where they lie in one piece."""
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
            raise not_there(id)
        return found[1]

    def rows(self, where: Where | None = None) -> Iterator[dict[str, object]]:
        """Iterate over the items as mappings `{"id": …, **metadata}`, in the order in which they were added.

        Args:
            where: Only items that this filter keeps; see `search`. Default: all.
        """
        for _, *item in self._store.stored(parse(where) if where else None):
            id, metadata = self._store.item(*item)
            yield {"id": id} | metadata | {"id": id}  # first, and itself where the metadata have one too

    def count(self, where: Where | None = None) -> int:
        """Return how many items there are, or how many a filter keeps; see `search`."""
        return len(self) if not where else tables.count(self._store, parse(where))

    def vector(self, id: Id) -> np.ndarray:
        """Return the (dim,) unit vector of an item, a copy.

        Raises:
            ValueError: If there is none of this id.
        """
        with self._store.holding():
            row = self._row(id)
            if row is None:
                raise not_there(id)
            result: np.ndarray = segments.take(self._store.snapshot().parts, np.asarray([row]))[0]
            return result

    @property
    def version(self) -> int:
        """Counts the changes of the index, also those that other processes make."""
        return self._store.snapshot().version

    def added_since(self, mark: int = 0) -> tuple[int, list[Id]]:
        """Return a mark of now, and the ids of the items that were added or replaced since another one, in their order.

        Args:
            mark: What an earlier call returned. Default 0: since the beginning. After `compact` all items count as new.
        """
        with self._store.holding():
            found = self._store.query("SELECT id FROM items WHERE row >= ? ORDER BY row", [mark]) or []
            return self._store.snapshot().end, [unbound(id) for (id,) in found]

    def bytes_on_disk(self) -> int:
        """Return the size of the index's files; 0 in memory."""
        directory = self._store.directory
        return 0 if directory is None else sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())

    @property
    def removed_vectors(self) -> int:
        """Return how many vectors are of items that were removed or replaced: `compact` gives them back."""
        state = self._store.snapshot()
        return sum(part.count for part in state.parts) - state.live

    def describe(self) -> dict[str, str]:
        """Return what the index is, in words: items, model, fields, disk, search."""
        state = self._store.snapshot()
        kinds, removed = tables.fields(self._store), self.removed_vectors
        found = {
            "items": f"{state.live:,} of {self.dimension} dimensions",
            "model": short(self.fingerprint or "unknown"),
            "fields": tables.words(kinds, self.fields),
            "on disk": f"{self.bytes_on_disk() / 1e6:,.1f} MB, vectors in {len(state.parts)} files",
        }
        if removed:
            found["removed"] = f"{removed:,} vectors that `compact` gives back"
        found["search"] = self._tuner.words(state)
        return found

    def refuse_other_model(self, fingerprint: str | None) -> None:
        """Raise where a fingerprint is of another model than the index's.

        Raises:
            ValueError: If both are known and differ.
        """
        self._check(self.dimension, "queries", fingerprint)

    def _row(self, id: object) -> int | None:
        id = id.item() if isinstance(id, np.generic) else id
        if not is_id(id):
            return None
        found = self._store.query("SELECT row FROM items WHERE id = ?", [bound(cast(Id, id))])
        return int(found[0][0]) if found else None

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
            engine: `"auto"`, the default: ScaNN or usearch from 50,000 items on, whichever is installed and, on a part
                of a large index, was measured to be faster; exact search otherwise and where a filter keeps few. An
                index that was compressed searches that way. Or `"exact"`, `"scann"` or `"usearch"`.
            progress: Whether to show a progress bar. None, the default, shows it in a terminal.
            decision: From which score on a match counts, as `retrieval.calibrate` finds it. Default: the index's own.

        Returns:
            A `Matches`; its `positions` are those among `ids` and `embeddings`. With a decision, `accepted` and
            `probabilities` are filled.

        Raises:
            ValueError: If queries do not fit, the model or the decision's is another one, or `k` is larger than what
                can be found.
        """
        return self._decider.search(self._asked(queries, fingerprint), k, where, engine, progress, decision)

    def _undecided(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        where: Where | None = None,
        fingerprint: str | None = None,
        engine: str = "auto",
        progress: bool | None = None,
    ) -> Matches:
        """Search without the index's own decision: whoever merges what several indexes find judges all of it."""
        return self._searcher.search(self._asked(queries, fingerprint), k, where, engine, progress)

    def _asked(self, queries: ArrayLike, fingerprint: str | None) -> np.ndarray:
        """Return queries as unit rows of the index's model."""
        asked = np.asarray(queries)
        vectors, _ = inputs.unit_rows(asked[None] if asked.ndim == 1 else asked, "queries")
        self._check(vectors.shape[1], "queries", fingerprint)
        return vectors

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
            >>> from tf_detreg.index import Index
            >>> index = Index([[1, 0], [1, 0.1], [0, 1]], metadata=[{"label": "a"}, {"label": "a"}, {"label": "b"}])
            >>> index.classify([[1.0, 0.2]], k=3).labels
            ['a']
        """
        (k,) = inputs.ranks_at(min(k, len(self)) if isinstance(k, int) else k, len(self))
        found = self.search(queries, k, where=where, fingerprint=fingerprint, progress=False, decision=decision)
        return deciding.vote(found, label)

    def tune(self, k: int = 10, progress: bool | None = None, engine: str = "auto") -> float | None:
        """Build and tune the search tree now, so that it is kept and no search has to wait for it.

        Args:
            k: The deepest search that it is meant for. Default 10.
            progress: Whether to show a progress bar. None, the default, shows it in a terminal.
            engine: `"scann"` or `"usearch"`. Default `"auto"`: the better one of those that are installed.

        Returns:
            The measured share of the true neighbors that it finds; None where exact search answers: below 50,000
            items, and where no engine is installed.

        Raises:
            ValueError: If `k` is larger than the gallery, or the engine is none.
        """
        checks.choice("engine", engine, ("auto", *trees.ENGINES))
        state = self._store.snapshot()
        (k,) = inputs.ranks_at(k, state.live)
        if state.live < searching.SCANN_FROM:
            return None
        try:
            return self._tuner.ready(state, k, progress, engine, replace=True).tuned.recall
        except trees.NoEngine:
            return None

    def _check(self, width: int, name: str, fingerprint: str | None) -> None:
        """Refuse vectors of another width, and another model."""
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

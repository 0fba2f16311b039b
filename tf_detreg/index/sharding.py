"""One catalog in several indexes, searched by asking all of them and merging what they find.

For a catalog that one machine cannot hold or build in time: `shard_building` and `splitting` make the shards. Each is
an index like any other, so that it is changed, filtered, compressed, verified and served as one; which shard an item
belongs to follows from its id alone.
"""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg.index import filters, shard_folders, tables
from tf_detreg.index.filters import Where
from tf_detreg.index.index import Index
from tf_detreg.index.shard_changes import ShardChanges
from tf_detreg.retrieval import deciding, inputs, parquet
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.identity import same_model, short
from tf_detreg.retrieval.matches import Matches


class Shard(Protocol):
    """What a searcher of shards asks of each: an `Index`, or a client of one on another machine."""

    @property
    def dimension(self) -> int:
        """Return the dimension of the vectors."""

    @property
    def fingerprint(self) -> str | None:
        """Return what identifies the model; None where it is unknown."""

    def __len__(self) -> int: ...

    def count(self, where: Where | None = None) -> int:
        """Return how many items there are, or how many a filter keeps."""

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        where: Where | None = None,
        fingerprint: str | None = None,
        engine: str = "auto",
        progress: bool | None = None,
    ) -> Matches:
        """Return the k nearest items of each query."""


class Shards(ShardChanges):
    r"""Several indexes that answer as one.

    The k nearest of all items are among the k nearest of each shard, so that merging loses nothing: with exact search
    the result is that of one index. An item is found where its shard's engine finds it, so that the share of true
    neighbors is at least the least of the shards', \(\min_s r_s\), which is what a search states.

    Args:
        shards: Indexes, or clients with the same methods, of one model; no id may be in two of them.

    Raises:
        ValueError: If there are none, or their dimensions or models differ.

    Example:
        >>> from tf_detreg.index import Index, Shards
        >>> east = Index([[1.0, 0.0], [0.8, 0.6]], ids=["a", "b"])
        >>> north = Index([[0.0, 1.0]], ids=["c"])
        >>> with Shards([east, north]) as shards:
        ...     shards.search([[0.9, 0.1], [0.1, 0.9]], k=2).ids
        [['a', 'b'], ['c', 'b']]
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        if not self.shards:
            raise ValueError("`shards` must be indexes; received none.")
        first = self.shards[0]
        for at, shard in enumerate(self.shards):
            known, other = first.fingerprint, shard.fingerprint
            if shard.dimension != first.dimension:
                raise ValueError(
                    f"`shards` must have one dimension; received {first.dimension}, and {shard.dimension} at {at}."
                )
            if known is not None and other is not None and not same_model(known, other):
                raise ValueError(
                    f"`shards` must be of one model; received {short(known)!r}, and {short(other)!r} at {at}."
                )
        # In a folder each item is in the shard that its id says; otherwise, where the caller likes.
        self._folder: pathlib.Path | None = None
        self._pool = concurrent.futures.ThreadPoolExecutor(len(self.shards), "shard")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Open all shards that `build` or `splitting.split` wrote into a directory.

        Raises:
            ValueError: If there are none, some are missing, or one is damaged.
        """
        with contextlib.ExitStack() as stack:
            opened = cls([stack.enter_context(Index.load(path)) for path in shard_folders.complete(directory)])
            stack.pop_all()  # they stay open
        opened._folder = pathlib.Path(directory)
        return opened

    def close(self) -> None:
        """Close the shards."""
        self._pool.shutdown()
        for shard in self.shards:
            if isinstance(shard, Index):
                shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def dimension(self) -> int:
        """Return the dimension of the vectors."""
        return self.shards[0].dimension

    @property
    def fingerprint(self) -> str | None:
        """Return what identifies the model; None where no shard knows it."""
        return next((shard.fingerprint for shard in self.shards if shard.fingerprint is not None), None)

    @property
    def decision(self) -> Decision | None:
        """Return the decision that the first shard keeps; None where it keeps none, or is a client.

        Setting it writes it to all shards. `search` uses it where it is given.
        """
        return getattr(self.shards[0], "decision", None)

    @decision.setter
    def decision(self, decision: Decision | None) -> None:
        for index in self.indexes:
            index.decision = decision

    def count(self, where: Where | None = None) -> int:
        """Return how many items there are, or how many a filter keeps."""
        return sum(self._pool.map(lambda shard: shard.count(where), self.shards))

    def rows(self, where: Where | None = None) -> Iterator[dict[str, object]]:
        """Iterate over the items, shard by shard, as `Index.rows`.

        Raises:
            TypeError: If a shard is a client of another machine.
        """
        return itertools.chain.from_iterable(index.rows(where) for index in self.indexes)

    def verify(self, progress: bool | None = None) -> None:
        """Read everything once and compare it with its checksums; every shard is read, also behind a damaged one.

        In a folder of shards, each item must also be in the shard that its id says.

        Args:
            progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

        Raises:
            ValueError: If something is damaged.
            TypeError: If a shard is a client of another machine.
        """
        damaged = []
        for at, index in enumerate(self.indexes):
            try:
                index.verify(progress)
                damaged += self._misplaced(index, shard_folders.name_of(at, len(self.shards)))
            except ValueError as error:
                damaged.append(str(error))
        if damaged:
            raise ValueError(" ".join(damaged))

    def describe(self) -> dict[str, str]:
        """Return what the shards are together, in words, as `Index.describe` does.

        Raises:
            TypeError: If a shard is a client of another machine.
        """
        indexes, kinds = self.indexes, dict[str, str]()
        for index in indexes:
            for name, kind in tables.fields(index._store).items():
                kinds[name] = parquet.joined(kinds.get(name), kind)
        indexed = set.intersection(*(set(index.fields) for index in indexes))
        searches = (index._tuner.words(index._store.snapshot()) for index in indexes)
        return {
            "items": f"{len(self):,} of {self.dimension} dimensions, in {len(indexes)} shards of "
            f"{min(map(len, indexes)):,} to {max(map(len, indexes)):,}",
            "model": short(self.fingerprint or "unknown"),
            "fields": tables.words(dict(sorted(kinds.items())), indexed),
            "on disk": f"{sum(index.bytes_on_disk() for index in indexes) / 1e6:,.1f} MB",
            "search": "; ".join(dict.fromkeys(searches)),
        }

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
        """Find the k nearest items of each query in all shards at once.

        Args:
            queries: (Q, dim), or (dim,) for one query.
            k: Default 10.
            where: Only items that this filter keeps; as for `Index.search`.
            fingerprint: Of the model that made the queries.
            engine: As for `Index.search`. Default `"auto"`: each shard by what it has.
            progress: As for `Index.search`.
            decision: From which score on a match counts. Default: none; those of the shards are not used.

        Returns:
            A `Matches`, whose `positions` count through the shards one after the other, and whose `neighbor_recall` is
            the least of the shards'. Equal scores are in this order.

        Raises:
            ValueError: As `Index.search`.
        """
        asked = np.asarray(queries)
        asked, _ = inputs.unit_rows(asked[None] if asked.ndim == 1 else asked, "queries")
        if decision is not None:
            decision.refuse_other_model(self.fingerprint)
        counts = list(self._pool.map(lambda shard: shard.count(where), self.shards))
        if not sum(counts):
            what = f"`where`={where!r} matches no item" if where else "The shards are empty"
            raise ValueError(f"{what}: there is nothing to find.{self._unknown(where)}")
        (k,) = inputs.ranks_at(k, sum(counts))
        needed = k if decision is None else deciding.depth(decision, k, sum(counts))
        options = {"where": where, "fingerprint": fingerprint, "engine": engine, "progress": progress}
        tasks = [
            self._pool.submit(up_to, shard, count, asked, needed, **options)
            for shard, count in zip(self.shards, counts, strict=True)
        ]
        sizes = np.concatenate([[0], np.cumsum([len(shard) for shard in self.shards])])
        results = [(task.result(), start) for task, start in zip(tasks, sizes, strict=False)]
        parts = [(matches, start) for matches, start in results if matches is not None]
        if not parts:  # emptied since they were counted
            raise ValueError("The shards are empty: there is nothing to find.")
        found = merged([matches for matches, _ in parts], [start for _, start in parts], needed)
        return found if decision is None else deciding.decided(found, decision, k)

    def _unknown(self, where: Where | None) -> str:
        """Return a sentence on the fields of a filter that no item has; empty text where clients may have them."""
        if not where or not all(isinstance(shard, Index) for shard in self.shards):
            return ""
        known = itertools.chain.from_iterable(tables.fields(index._store) for index in self.indexes)
        return filters.unknown(filters.parse(where), known)


def load(directory: str | os.PathLike[str]) -> Index | Shards:
    """Open an index, or all shards of one that lie in a directory.

    Raises:
        ValueError: If it is neither, is damaged, or shards are missing.
    """
    return Shards.load(directory) if shard_folders.present(directory) else Index.load(directory)


def up_to(searched: Any, count: int, queries: np.ndarray, k: int, **options: Any) -> Matches | None:
    """Return the k nearest items of each query, or all items where there are fewer; None where there is none.

    Counting and searching see two states of a catalog that others change: where items were removed in between, those
    that are left are searched.

    Args:
        searched: An `Index`, `Shards`, or one of these. An `Index` uses the decision that it keeps only where options
            hold one.
        count: How many items it had a moment ago, with the filter among the options.
        queries: (Q, dim).
        k: How many.
        **options: Of its `search`.

    Raises:
        ValueError: As `search`.
    """
    bare = isinstance(searched, Index) and "decision" not in options
    search = searched._undecided if bare else searched.search
    while count:
        try:
            matches: Matches = search(queries, min(k, count), **options)
            return matches
        except ValueError:
            left = searched.count(options.get("where"))
            if left >= min(k, count):
                raise
            count = left
    return None


def merged(found: Sequence[Matches], starts: Sequence[int], k: int) -> Matches:
    """Return the k best matches of each query in several results.

    Args:
        found: Of the shards, for the same queries.
        starts: How many items the shards before each one have.
        k: How many.
    """
    scores = np.concatenate([one.scores for one in found], axis=1)
    positions = np.concatenate([one.positions + start for one, start in zip(found, starts, strict=True)], axis=1)
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    rows = range(len(scores))
    ids = [[id for one in found for id in one.ids[row]] for row in rows]
    metadata = [[item for one in found for item in one.metadata[row]] for row in rows]
    return Matches(
        ids=[[ids[row][at] for at in order[row]] for row in rows],
        scores=np.take_along_axis(scores, order, axis=1),
        positions=np.take_along_axis(positions, order, axis=1),
        metadata=[[metadata[row][at] for at in order[row]] for row in rows],
        engine=", ".join(sorted({one.engine for one in found})),
        neighbor_recall=min(one.neighbor_recall for one in found),
        notice=" ".join(dict.fromkeys(one.notice for one in found if one.notice)) or None,
    )

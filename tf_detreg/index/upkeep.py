"""What keeps an index in good order over the years: compacting, compressing, a new model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.index import changes, refreshing, searching, trees
from tf_detreg.index.catalog import Catalog
from tf_detreg.index.items import Id, metadata_texts, plain_ids
from tf_detreg.index.refreshing import Refreshed
from tf_detreg.retrieval import approximate, codes, inputs


class Compression(NamedTuple):
    """How an index is compressed.

    Args:
        kind: `"float16"`, `"int8"`, `"binary"` or `"product"`.
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


class Upkeep(Catalog):
    """The side of an index that rewrites it and leaves the items what they are; `Index` has all of it."""

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

    def refresh(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id],
        fingerprint: str | None,
        *,
        limit: float = 0.1,
        k: int = 10,
        note: Mapping[str, object] | None = None,
    ) -> Refreshed:
        """Move the index to another model, in one transaction: a reader sees all of the old or all of the new.

        Args:
            embeddings: (n, dim) vectors of the new model, of any dimension.
            ids: The items that they are of; those that the index no longer holds are passed over. All other items are
                mapped from their old vectors; see `index.refreshing`.
            fingerprint: Of the new model.
            limit: The largest share of the `k` nearest neighbors that mapping may lose. Default 0.1.
            k: Default 10.
            note: Fields to write into the metadata of all items. Default: none.

        Returns:
            How many items were embedded and how many mapped, and what mapping loses. A decision of the old model and a
            search tree over its vectors are dropped.

        Raises:
            ValueError: If mapping loses more than `limit`, or there are too few items to fit it; nothing is changed
                then.
        """
        vectors, _ = inputs.unit_rows(embeddings, "embeddings")
        plain = plain_ids(ids, len(vectors))
        limit, k = checks.within("limit", limit, 0, 1), checks.integer("k", k, 1)
        metadata_texts([note or {}], 1)
        with self._store.changing() as change:
            done = refreshing.refresh(change, plain, vectors, fingerprint, limit, k, note or {})
        self._tuner.forget()
        return done

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
        and `compact` compresses again. All but `"product"` look at every item, so that they save memory, not time.

        Args:
            kind: `"float16"`, `"int8"`, the default, or `"binary"`: 2, 1 or 1/8 bytes a dimension in place of 4; see
                `retrieval.codes`. Or `"product"`, ScaNN's product quantization in the leaves of a tree: 1/4 byte a
                dimension and 4 for the leaf; see `retrieval.product`.
            dimensions: Project to so many principal axes first; not for `"product"`. Default: keep all.
            k: The deepest search that it is meant for. Default 10.
            target: Share of the true neighbors to find. Default 0.99.
            progress: Whether to show progress. None, the default, shows it in a terminal.

        Returns:
            The measured recall and the bytes that an item takes in memory.

        Raises:
            ValueError: If an argument is out of range, or there are fewer than 1,000 items.
            ImportError: If `kind` is `"product"` and ScaNN cannot be used.

        Example:
            >>> import numpy as np
            >>> from tf_detreg.index import Index
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
        size = float((self._store.snapshot().tree or {})["bytes"])
        return Compression(kind, dimensions or self.dimension, size, tuned.tree.rescored, tuned.recall)

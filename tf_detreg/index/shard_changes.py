"""Changes of a folder of shards: each item is added, replaced and removed in the shard that its id says."""

import os
from collections.abc import Mapping, Sequence
from typing import cast

from numpy.typing import ArrayLike

from tf_detreg.index.filters import Where, parse
from tf_detreg.index.index import Index
from tf_detreg.index.items import Id, metadata_texts, not_there, plain_ids
from tf_detreg.index.shard_items import ShardItems
from tf_detreg.retrieval import bulk_shards, inputs


class ShardChanges(ShardItems):
    """The side of `Shards` that changes them."""

    def refuse_other_model(self, fingerprint: str | None) -> None:
        """Raise where a fingerprint is of another model than the shards'.

        Raises:
            ValueError: If both are known and differ.
        """
        for index in self._changed():
            index.refuse_other_model(fingerprint)

    def upsert(
        self,
        embeddings: ArrayLike,
        ids: Sequence[Id],
        metadata: Sequence[Mapping[str, object]] | None = None,
        fingerprint: str | None = None,
    ) -> int:
        """Add items, and replace those whose ids are there, each in the shard that its id says.

        A transaction a shard: what is killed in between has changed some of them, and can simply be done again.

        Args:
            embeddings: (N, dim) vectors.
            ids: N different strings or integers.
            metadata: N mappings that JSON can hold. Default: empty ones.
            fingerprint: Of the model. Default: unknown.

        Returns:
            How many were replaced.

        Raises:
            ValueError: If the items do not fit, and nothing is changed then; or if the shards are of no folder.
        """
        vectors, _ = inputs.unit_rows(embeddings, "embeddings")
        plain = plain_ids(ids, len(vectors))
        metadata_texts(metadata, len(vectors))
        dealt, replaced = self._dealt(plain), 0
        for index, _ in dealt:
            index._check(vectors.shape[1], "embeddings", fingerprint)
        for index, rows in dealt:
            some = None if metadata is None else [metadata[row] for row in rows]
            replaced += index.upsert(vectors[rows], [plain[row] for row in rows], some, fingerprint)
        return replaced

    def remove(self, ids: Sequence[Id] | None = None, *, where: Where | None = None) -> int:
        """Remove items by their ids or by a filter, in a transaction a shard.

        Args:
            ids: Which. Ids that are in no shard are an error.
            where: A filter as for `search`. Give one of the two.

        Returns:
            How many were removed.

        Raises:
            ValueError: If an id is not there, or both or neither are given, and nothing is removed then; or if the
                shards are of no folder.
        """
        if (ids is None) == (where is None):
            raise ValueError("`ids` must be given, or `where`; received both or neither: give either `ids` or `where`.")
        if where is not None:
            parse(where)
            return sum(index.remove(where=where) for index in self._changed())
        plain = plain_ids(ids or [])
        dealt = self._dealt(plain)
        for index, rows in dealt:
            missing = next((plain[row] for row in rows if plain[row] not in index), None)
            if missing is not None:
                raise not_there(missing)
        return sum(index.remove([plain[row] for row in rows]) for index, rows in dealt)

    def _dealt(self, ids: Sequence[Id]) -> list[tuple[Index, list[int]]]:
        """Return the shards that ids belong to, each with the positions of its ids."""
        indexes = self._changed()
        rows: dict[int, list[int]] = {}
        for row, id in enumerate(ids):
            rows.setdefault(bulk_shards.shard_of(str(id), len(indexes)), []).append(row)
        return [(indexes[shard], rows[shard]) for shard in sorted(rows)]

    def _changed(self) -> list[Index]:
        """Return the shards, all of one folder.

        Raises:
            ValueError: If they are not: nobody says then where an item belongs.
        """
        if self._folder is None:
            raise ValueError(
                "`shards` must be opened from their folder, Shards.load(…), to be changed; received indexes one by "
                "one. Change each of them by itself."
            )
        return [cast(Index, shard) for shard in self.shards]

    def _misplaced(self, index: Index, name: str) -> list[str]:
        """Return a sentence if a shard of a folder holds what belongs to another one."""
        if self._folder is None:
            return []
        found = [id for id in index if self.shard_of(id) is not index]
        if not found:
            return []
        return [
            f"{self._folder / name} holds {len(found):,} items of other shards, such as {found[0]!r}. Remove them "
            f"there, and add them to `Shards.load({os.fspath(self._folder)!r}).shard_of(id)`."
        ]

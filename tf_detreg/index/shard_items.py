"""Single items of several shards, each found in the shard that holds it."""

import pathlib
from typing import TYPE_CHECKING, cast

import numpy as np

from tf_detreg.index.index import Index
from tf_detreg.index.items import Id, not_there
from tf_detreg.retrieval import bulk_shards

if TYPE_CHECKING:
    from tf_detreg.index.sharding import Shard


class ShardItems:
    """The side of `Shards` that reads single items."""

    shards: "tuple[Shard, ...]"
    _folder: pathlib.Path | None

    @property
    def indexes(self) -> list[Index]:
        """Return the shards, each an index on this machine.

        Raises:
            TypeError: If one is a client of another machine.
        """
        found = []
        for at, shard in enumerate(self.shards):
            if not isinstance(shard, Index):
                raise TypeError(f"`shards` must be indexes on this machine; received a {type(shard).__name__} at {at}.")
            found.append(shard)
        return found

    def shard_of(self, id: Id) -> "Shard":
        """Return the shard that an id belongs to: the one to add, replace and remove it in.

        It follows from a digest of the id, as in `retrieval.bulk_embed`.
        """
        return self.shards[bulk_shards.shard_of(str(id), len(self.shards))]

    def __contains__(self, id: object) -> bool:
        return self._holder(id) is not None

    def metadata(self, id: Id) -> dict[str, object]:
        """Return what is known about an item.

        Raises:
            ValueError: If there is none of this id on this machine.
        """
        return self._found(id).metadata(id)

    def vector(self, id: Id) -> np.ndarray:
        """Return the (dim,) unit vector of an item, a copy.

        Raises:
            ValueError: If there is none of this id on this machine.
        """
        return self._found(id).vector(id)

    def _found(self, id: Id) -> Index:
        holder = self._holder(id)
        if holder is None:
            raise not_there(id)
        return holder

    def _holder(self, id: object) -> Index | None:
        """Return the shard that holds an item; None where there is none of this id on this machine."""
        # In a folder the id itself says where to look.
        asked = self.shards if self._folder is None else (self.shard_of(cast(Id, id)),)
        return next((shard for shard in asked if isinstance(shard, Index) and id in shard), None)

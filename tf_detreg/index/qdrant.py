"""The items of an index as points of a Qdrant collection."""

import uuid
from typing import Any

from tf_detreg import extras
from tf_detreg.index import tables
from tf_detreg.index.filters import Filter
from tf_detreg.index.items import Id
from tf_detreg.index.store import Store

_PART = 500  # points a request: with metadata these stay below the server's limit of 32 MB


def write(store: Store, client: Any, collection: str, where: Filter | None, progress: bool | None) -> int:
    """Make the collection; arguments as for `Index.to_qdrant`.

    Raises:
        ImportError: Without qdrant-client.
        ValueError: If the collection exists.
    """
    with extras.needed("Writing to Qdrant"):
        from qdrant_client import models
    if client.collection_exists(collection):
        raise ValueError(f"`collection`={collection!r} exists. Choose another name, or delete it.")
    total = 0
    with store.holding():
        width = int(store.snapshot().facts["dimension"])
        size = models.VectorParams(size=width, distance=models.Distance.COSINE)
        client.create_collection(collection, vectors_config=size)
        for part in tables.parts(store, where, progress):
            for low in range(0, len(part.ids), _PART):
                some = slice(low, low + _PART)
                payloads = [
                    {"id": id, "metadata": facts} for id, facts in zip(part.ids[some], part.metadata[some], strict=True)
                ]
                points = models.Batch(
                    ids=[point_id(id) for id in part.ids[some]],
                    vectors=part.embeddings[some].tolist(),
                    payloads=payloads,
                )
                client.upsert(collection, points)
                total += len(payloads)
    return total


def point_id(id: Id) -> int | str:
    """Return the id of an item's point: Qdrant takes natural numbers and UUIDs.

    Example:
        >>> point_id(7), point_id("mug.jpg") == point_id("mug.jpg")
        (7, True)
    """
    if isinstance(id, int) and id >= 0:
        return id
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{type(id).__name__}:{id}".encode("utf-8", "surrogatepass").hex()))

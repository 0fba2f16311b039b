"""What an index writes for others: Parquet, PostgreSQL with pgvector, Qdrant, LanceDB."""

import os
import pathlib
from typing import TYPE_CHECKING, Any

from tf_detreg import extras
from tf_detreg.index import pgvector, qdrant, tables
from tf_detreg.index.filters import Filter, Where, parse
from tf_detreg.index.store import Store
from tf_detreg.retrieval import parquet

if TYPE_CHECKING:
    import pyarrow as pa


class Exports:
    """The side of an index that writes copies for other programs; `Index` has all of it."""

    _store: Store

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None = None,
        where: Where | None = None,
        progress: bool | None = None,
    ) -> pathlib.Path:
        """Write the items to a Parquet file: `id`, `vector` and a column a field of the metadata.

        Args:
            path: The file.
            model: The model's name, for the file's schema. Default: unknown.
            where: Only items that this filter keeps; see `search`. Default: all.
            progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

        Returns:
            The path. `retrieval.parquet` says how the table is laid out, and reads it; so does `Index.from_parquet`.

        Raises:
            ImportError: Without pyarrow.
            OSError: If it cannot be written.
        """
        kept = _filter(where)
        with self._store.holding():
            table = tables.schema(self._store, kept, model)
            with parquet.writing(path, table) as write:
                for part in tables.parts(self._store, kept, progress):
                    write(*part)
        return pathlib.Path(path)

    def to_arrow(self, *, model: str | None = None, where: Where | None = None) -> "pa.RecordBatchReader":
        """Return the items as a stream of Arrow's batches, which DuckDB, Polars, LanceDB and others take.

        Args:
            model: The model's name, for the schema. Default: unknown.
            where: Only items that this filter keeps. Default: all.

        Returns:
            A `pyarrow.RecordBatchReader`. Reading it raises a RuntimeError if the index is changed meanwhile.

        Raises:
            ImportError: Without pyarrow.
        """
        parquet.require()
        import pyarrow as pa

        kept = _filter(where)
        table = tables.schema(self._store, kept, model)
        batches = (parquet.batch(table, *part) for part in tables.parts(self._store, kept))
        return pa.RecordBatchReader.from_batches(table, batches)

    def to_pgvector(
        self,
        path: str | os.PathLike[str],
        table: str = "items",
        *,
        where: Where | None = None,
        progress: bool | None = None,
    ) -> pathlib.Path:
        """Write a file of SQL that makes a table of the items in PostgreSQL with pgvector.

        The table has the columns `id` (text), `embedding` (vector) and `metadata` (jsonb), and an HNSW index for cosine
        distance. The file is one transaction: `psql --set ON_ERROR_STOP=1 --file FILE`.

        Args:
            path: The file.
            table: The table's name, perhaps with its schema's. Default `"items"`.
            where: Only items that this filter keeps. Default: all.
            progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

        Returns:
            The path.

        Raises:
            ValueError: If the name is none, or an item holds a zero character, which PostgreSQL cannot store.
            OSError: If it cannot be written.
        """
        return pgvector.write(self._store, pathlib.Path(path), table, _filter(where), progress)

    def to_qdrant(
        self,
        client: Any,
        collection: str = "items",
        *,
        where: Where | None = None,
        progress: bool | None = None,
    ) -> int:
        """Make a collection of the items in Qdrant, with `id` and `metadata` as the payload of each point.

        Args:
            client: A `qdrant_client.QdrantClient`, of a server or of its embedded mode.
            collection: Its name, which must be free. Default `"items"`.
            where: Only items that this filter keeps. Default: all.
            progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

        Returns:
            How many points were written.

        Raises:
            ImportError: Without qdrant-client.
            ValueError: If the collection exists.
        """
        return qdrant.write(self._store, client, collection, _filter(where), progress)

    def to_lancedb(
        self,
        directory: str | os.PathLike[str],
        table: str = "items",
        *,
        model: str | None = None,
        where: Where | None = None,
    ) -> int:
        """Make a table of the items in a LanceDB database, with the columns of `to_parquet`.

        Args:
            directory: Of the database.
            table: Its name, which must be free. Default `"items"`.
            model: The model's name, for the schema. Default: unknown.
            where: Only items that this filter keeps. Default: all.

        Returns:
            How many rows were written.

        Raises:
            ImportError: Without lancedb.
            ValueError: If the table exists.
        """
        with extras.needed("Writing to LanceDB"):
            import lancedb
        made = lancedb.connect(os.fspath(directory)).create_table(table, data=self.to_arrow(model=model, where=where))
        return int(made.count_rows())


def _filter(where: Where | None) -> Filter | None:
    return parse(where) if where else None

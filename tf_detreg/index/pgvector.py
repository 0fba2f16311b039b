"""The items of an index as SQL for PostgreSQL with pgvector."""

import json
import pathlib
import re
from collections.abc import Mapping

from tf_detreg.files import readable, replacing
from tf_detreg.index import tables
from tf_detreg.index.filters import Filter
from tf_detreg.index.store import Store
from tf_detreg.retrieval.identity import short

_NAME = re.compile(r"[A-Za-z_]\w{0,62}(\.[A-Za-z_]\w{0,62})?", re.ASCII)
_INDEXED = 2_000  # dimensions that pgvector's HNSW takes
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def write(store: Store, path: pathlib.Path, table: str, where: Filter | None, progress: bool | None) -> pathlib.Path:
    """Write the file; arguments as for `Index.to_pgvector`.

    Raises:
        ValueError: If the table's name is none, or an item holds a zero character.
        OSError: If it cannot be written.
    """
    if not _NAME.fullmatch(table):
        raise ValueError(f"`table` must be a name such as items or shop.items; received {table!r}.")
    with store.holding(), replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        facts = store.snapshot().facts
        width = int(facts["dimension"])
        number = "[" + ",".join(["%.9g"] * width) + "]"  # nine digits are a float32, exactly
        file.write(_head(table, width, facts["model"]))
        for part in tables.parts(store, where, progress):
            for id, row, metadata in zip(part.ids, part.embeddings.tolist(), part.metadata, strict=True):
                text = readable(id) if isinstance(id, str) else str(id)
                facts_text = json.dumps(_plain(metadata), ensure_ascii=False)
                if "\0" in text or "\\u0000" in facts_text:
                    raise ValueError(f"`id`={id!r} holds a zero character, which PostgreSQL cannot store.")
                file.write(f"{text.translate(_ESCAPES)}\t{number % tuple(row)}\t{facts_text.translate(_ESCAPES)}\n")
        file.write(_end(table, width))
    return path


def _head(table: str, width: int, model: str | None) -> str:
    known = "unknown" if model is None else re.sub(r"[^\w.-]", "?", short(model), flags=re.ASCII)
    return f"""-- Load with: psql --set ON_ERROR_STOP=1 --file THIS_FILE
-- The nearest items of a query, embedded with the same model:
--   SELECT id, 1 - (embedding <=> '[…]') AS score FROM {table} ORDER BY embedding <=> '[…]' LIMIT 10;
BEGIN;
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE {table} (id text PRIMARY KEY, embedding vector({width}) NOT NULL, metadata jsonb NOT NULL);
COMMENT ON TABLE {table} IS 'Embeddings of the model {known}';
COPY {table} (id, embedding, metadata) FROM stdin;
"""


def _end(table: str, width: int) -> str:
    if width > _INDEXED:
        return f"\\.\n-- pgvector's HNSW takes at most {_INDEXED} dimensions: searches read the whole table.\nCOMMIT;\n"
    return f"\\.\nCREATE INDEX ON {table} USING hnsw (embedding vector_cosine_ops);\nCOMMIT;\nANALYZE {table};\n"


def _plain(value: object) -> object:
    """Return metadata whose texts UTF-8 can hold."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {readable(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value

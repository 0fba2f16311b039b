"""From one index, or from embeddings in files, to shards: each item goes to the shard that its id says."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tf_detreg import checks
from tf_detreg.files import existing
from tf_detreg.index import segments, shard_building, shard_folders, unfinished
from tf_detreg.index.index import Index
from tf_detreg.index.items import Id
from tf_detreg.index.store import FILE
from tf_detreg.progress import ticker
from tf_detreg.retrieval import bulk_embed, bulk_shards, parquet
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.identity import same_model, short

MOST = 256  # shards that are written at the same time, each with files that are open
_ROWS = 65_536
Part = tuple[Sequence[Id], np.ndarray, Sequence[dict[str, object]]]


class Source(NamedTuple):
    """Items, wherever they are.

    Args:
        parts: Ids, vectors (n, dim) and metadata, some items at a time.
        total: How many items there are; None where that takes reading them.
        fingerprint: Of the model; None where it is unknown.
        fields: Of the metadata, on which filters are quick.
        decision: From which score on a match counts; None where every match does.
    """

    parts: Iterator[Part]
    total: int | None = None
    fingerprint: str | None = None
    fields: tuple[str, ...] = ()
    decision: Decision | None = None


def split(
    source: str | os.PathLike[str] | Index,
    output: str | os.PathLike[str],
    shards: int,
    *,
    fingerprint: str | None = None,
    k: int | None = 10,
    fields: Iterable[str] = (),
    progress: bool | None = None,
    dimension: int | None = None,
) -> list[pathlib.Path]:
    """Make several indexes of the items of one, or of embeddings in files, in bounded memory.

    The folder appears when all of them are whole; until then they are in `OUTPUT.part`. Where the call was stopped, the
    same call again goes on: what is there is compared with its checksums and with the source, and kept, and a damaged
    shard begins anew. The result is that of an unbroken call. `shard_building.build` instead makes an index of each
    file of a bulk embedding, and runs on several machines.

    Args:
        source: An `Index` or the directory of one; a Parquet file of embeddings, or a folder of them; or a folder of
            shards, Parquet or TFRecord, that `retrieval.bulk_embed` wrote.
        output: A folder for the indexes that does not exist yet, or is empty and neither a link nor a mount point.
        shards: How many, at most 256.
        fingerprint: Of the model. Default: as the source says.
        k: The deepest search that the search tree of a large shard is meant for. Default 10; None builds no trees.
        fields: Of the metadata, on which filters are to be quick, beside those of the index. Default: none.
        progress: Whether to show progress; None, the default, shows it in a terminal. Of files of a bulk embedding,
            whose items nobody has counted, only the building of trees shows any.
        dimension: Of the model's vectors, where other ones are to be refused. Default: as the source has them.

    Returns:
        The directories of the indexes. What an index knows comes along: metadata, fields, model, decision.

    Raises:
        ValueError: If `source` holds no embeddings, `output` is not empty, or an argument is out of range; if a split
            of another source, or with other arguments, was stopped there.

    Example:
        >>> import tempfile
        >>> from tf_detreg.index import Index, Shards
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "shards"
        >>> [path.name for path in split(Index([[1.0, 0.0], [0.0, 1.0]], ids=["a", "b"]), folder, 2)]
        ['index-00000-of-00002', 'index-00001-of-00002']
        >>> with Shards.load(folder) as opened:
        ...     opened.search([0.1, 0.9], k=1).ids
        [['b']]
    """
    checks.integer("shards", shards, 1, MOST)
    asked = shard_building.checked_fields(k, fields)
    folder = pathlib.Path(output)
    with unfinished.named_when_whole(folder) as work, _opened(source) as read:
        if fingerprint and read.fingerprint and not same_model(fingerprint, read.fingerprint):
            raise ValueError(
                f"`fingerprint` must be of the model that made the source, {short(read.fingerprint)!r}; received "
                f"{short(fingerprint)!r}. To go to another model, use `refresh`."
            )
        places = [work / shard_folders.name_of(shard, shards) for shard in range(shards)]
        known = tuple(dict.fromkeys((*read.fields, *asked)))
        _fill(read, places, fingerprint or read.fingerprint, known, progress, dimension)
        for place in places:
            with Index.load(place) as index:
                if index.decision != read.decision:
                    index.decision = read.decision
                if k is not None and len(index):
                    index.tune(min(k, len(index)), progress)
    return shard_folders.complete(folder)


def _fill(
    read: Source,
    places: Sequence[pathlib.Path],
    fingerprint: str | None,
    fields: Sequence[str],
    progress: bool | None,
    dimension: int | None,
) -> None:
    """Make the indexes, or go on with them, and add each item to that of its id."""
    parts: list[unfinished.Part] = []
    with (
        contextlib.ExitStack() as stack,
        ticker("Writing shards", read.total or 0, False if read.total is None else progress) as tick,
    ):
        for ids, vectors, metadata in read.parts:
            shard_building.check_dimension(dimension, vectors.shape[1])
            if not parts:
                shards = unfinished.opened(places, vectors.shape[1], fingerprint, fields, progress)
                parts = stack.enter_context(shards)
            belongs = np.asarray([bulk_shards.shard_of(str(id), len(parts)) for id in ids])
            dealt = []
            for shard in np.unique(belongs):
                rows = np.flatnonzero(belongs == shard).tolist()
                dealt.append((parts[shard], [ids[row] for row in rows], vectors[rows], [metadata[row] for row in rows]))
            for part, *items in dealt:  # all of them before any is changed: the source may be another one
                part.compare(*items)
            for part, *items in dealt:
                part.put(*items)
            tick(len(ids))
        for part in parts:
            part.end()
    if not parts:
        raise ValueError("`source` must hold at least one embedding; received none: it is empty.")


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | Index) -> Iterator[Source]:
    """Yield the items of what was given, each kind of which is known by the files that are there."""
    if isinstance(source, Index):
        with source._store.holding():
            yield _of_index(source)
        return
    path = existing(source, "source", "It is an index, a Parquet file, or a folder of embeddings.")
    if path.is_dir() and any(path.glob("embeddings-*-of-*")):
        yield Source(_of_files(bulk_embed.shard_files(os.fspath(path))))
    elif path.suffix == ".parquet" or (not (path / FILE).is_file() and any(path.glob("*.parquet"))):
        read = parquet.parts(path, _ROWS)
        first = list(itertools.islice(read, 1))
        parts = ((part.ids, part.embeddings, part.metadata) for part in itertools.chain(first, read))
        yield Source(parts, parquet.count(path), first[0].fingerprint if first else None)
    else:
        with Index.load(path) as index, index._store.holding():
            yield _of_index(index)


def _of_index(index: Index) -> Source:
    def parts() -> Iterator[Part]:
        for rows, vectors in segments.live_blocks(index._store.snapshot().parts):
            items = index._store.items(rows) or {}
            ids, metadata = zip(*(items[int(row)] for row in rows), strict=True)
            yield ids, vectors, metadata

    return Source(parts(), len(index), index.fingerprint, index.fields, index.decision)


def _of_files(files: Sequence[str]) -> Iterator[Part]:
    for file in files:
        for names, vectors in bulk_shards.parts(file, _ROWS):
            yield names, vectors, [{"path": name} for name in names]

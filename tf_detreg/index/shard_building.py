"""Indexes made of the shards of a bulk embedding, each in bounded memory, on one machine or on many."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from tf_detreg import checks, extras
from tf_detreg.files import replacing
from tf_detreg.index import filters, shard_folders, tables
from tf_detreg.index.index import Index
from tf_detreg.index.items import Id
from tf_detreg.retrieval import bulk_shards, inputs
from tf_detreg.retrieval.identity import same_model, short

_ROWS = 65_536  # that are read together


def build(
    vectors: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    fingerprint: str | None = None,
    k: int | None = 10,
    fields: Iterable[str] = (),
    options: Sequence[str] | None = None,
    dimension: int | None = None,
) -> list[pathlib.Path]:
    """Make an index of each shard that `retrieval.bulk_embed` wrote, in bounded memory.

    An index gets its name, `index-00003-of-00016`, when it is whole: the same call made again keeps those that are
    there, compares them with their files, and makes the others.

    Args:
        vectors: The folder of `embeddings-00003-of-00016.parquet` or `.tfrecord`.
        output: A folder for the indexes; with a cluster, one that every worker can write.
        fingerprint: Of the model. Default: unknown.
        k: The deepest search that the search tree of a large shard is meant for. Default 10; None builds no trees.
        fields: Of the metadata, on which filters are to be quick. Default: none.
        options: Beam's pipeline options, for as many shards at a time as there are workers. Default None: one shard
            after the other, in this process, without Beam.
        dimension: Of the model's vectors, where other ones are to be refused. Default: as the files have them.

    Returns:
        The directories of the indexes.

    Raises:
        ValueError: If `vectors` holds no shards, or not all of one run, or vectors of another dimension; if an argument
            is out of range; if an index is there that another call made, or that was changed since.
        ImportError: If there are options and Beam is not installed.
    """
    from tf_detreg.retrieval import bulk_embed

    asked = checked_fields(k, fields)
    files = bulk_embed.shard_files(os.fspath(vectors))
    folder = pathlib.Path(output)
    width = next((part.shape[1] for file in files for _, part in bulk_shards.parts(file, 1) if len(part)), 1)
    check_dimension(dimension, width)
    work = [(file, str(folder / shard_folders.name_of(at, len(files)))) for at, file in enumerate(files)]
    more = (width, fingerprint, k, asked)
    if options is None:
        for one in work:
            build_shard(one, *more)
    else:
        with extras.needed("Building shards by Beam"):
            from tf_detreg.retrieval import beam_stages
        beam_stages.each(work, build_shard, more, options)
    return shard_folders.complete(folder)


def checked_fields(k: int | None, fields: Iterable[str]) -> tuple[str, ...]:
    """Return the names of fields, and raise now what trees and fields would raise when all vectors are written.

    Args:
        k: For `Index.tune`; None leaves it out.
        fields: For `Index.index_field`.

    Raises:
        ValueError: If `k` is no positive integer, or a field has a name that none can have.

    Example:
        >>> checked_fields(10, ["label", "price"])
        ('label', 'price')
    """
    if k is not None:
        checks.integer("k", k, 1)
    if isinstance(fields, str):
        raise checks.invalid("fields", "be a list of names", checks.shown(fields), f"Give [{fields!r}].")
    names = tuple(fields)
    for name in names:
        filters.column_of(name, "fields")
    return names


def check_dimension(wanted: int | None, width: int) -> None:
    """Refuse vectors that the model of a fingerprint does not make.

    Raises:
        ValueError: If the two are known and differ.
    """
    if wanted not in (None, width):
        raise checks.invalid(
            "dimension",
            f"be that of the vectors, {width}",
            f"{wanted}",
            "Another model made them: name its run (--run), or leave it out.",
        )


def build_shard(
    work: tuple[str, str], width: int, fingerprint: str | None, k: int | None, fields: Iterable[str]
) -> str:
    """Make an index of one shard, unless it is there, of the same items; arguments as for `build`.

    Args:
        work: The file of the shard, and the directory of its index.
        width: Dimension of the vectors.
        fingerprint: Of the model.
        k: For `Index.tune`; None leaves it out.
        fields: For `Index.index_field`.

    Returns:
        The directory.

    Raises:
        ValueError: If an index is there that another call made, or that was changed since.
    """
    file, directory = work
    if pathlib.Path(directory).exists():
        _compare(file, directory, width, fingerprint, fields)
        return directory
    with replacing(directory) as temporary, Index.create(temporary, width, fingerprint) as index:
        if fields:
            index.index_field(*fields)
        for names, part in bulk_shards.parts(file, _ROWS):
            index.add(part, names, [{"path": name} for name in names])
        if k is not None and len(index):
            index.tune(min(k, len(index)), progress=False)
    return directory


def _compare(file: str, directory: str, width: int, fingerprint: str | None, fields: Iterable[str]) -> None:
    """Raise where an index is not what `build_shard` would make: of other vectors, another model, without a field."""
    with Index.load(directory) as index:
        known, lacking = index.fingerprint, sorted(set(fields).difference(index.fields))
        if fingerprint is not None and (known is None or not same_model(fingerprint, known)):
            model = "no known model" if known is None else f"the model {short(known)!r}"
            raise _other("fingerprint", f"be of {model}, as is", repr(short(fingerprint)), directory)
        if lacking:
            raise _other("fields", f"be among {list(index.fields)}, those of", repr(lacking), directory)
        with index._store.holding():
            there = _digest((part.ids, part.embeddings) for part in tables.parts(index._store))
        wanted = _digest((ids, inputs.unit_rows(some, "vectors")[0]) for ids, some in bulk_shards.parts(file, _ROWS))
        if there != wanted or index.dimension != width:
            raise _other("vectors", "hold the items of", f"others in {file!r}", directory)


def _digest(parts: Iterable[tuple[Sequence[Id], np.ndarray]]) -> tuple[str, str]:
    """Return digests of ids and of vectors in their order, however many of them come together."""
    names, vectors = hashlib.blake2b(), hashlib.blake2b()
    for ids, some in parts:
        names.update("".join(f"{id!r}\n" for id in ids).encode())
        vectors.update(np.ascontiguousarray(some).data)
    return names.hexdigest(), vectors.hexdigest()


def _other(argument: str, wanted: str, received: str, directory: str) -> ValueError:
    return checks.invalid(
        argument,
        f"{wanted} the index {directory!r}, which is there already",
        received,
        "Remove that index, and it is made anew; or choose another folder.",
    )

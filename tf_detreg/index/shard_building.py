"""Indexes made of the shards of a bulk embedding, each in bounded memory, on one machine or on many."""

import os
import pathlib
from collections.abc import Iterable, Sequence

from tf_detreg import checks, extras
from tf_detreg.files import replacing
from tf_detreg.index import shard_folders
from tf_detreg.index.index import Index
from tf_detreg.retrieval import bulk_shards


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
    there and makes the others.

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
        ValueError: If `vectors` holds no shards, or not all of one run, or vectors of another dimension.
        ImportError: If there are options and Beam is not installed.
    """
    from tf_detreg.retrieval import bulk_embed

    files = bulk_embed.shard_files(os.fspath(vectors))
    folder = pathlib.Path(output)
    width = next((part.shape[1] for file in files for _, part in bulk_shards.parts(file, 1) if len(part)), 1)
    check_dimension(dimension, width)
    work = [(file, str(folder / shard_folders.name_of(at, len(files)))) for at, file in enumerate(files)]
    more = (width, fingerprint, k, tuple(fields))
    if options is None:
        for one in work:
            build_shard(one, *more)
    else:
        with extras.needed("Building shards by Beam"):
            from tf_detreg.retrieval import beam_stages
        beam_stages.each(work, build_shard, more, options)
    return shard_folders.complete(folder)


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
    """Make an index of one shard, unless it is there; arguments as for `build`.

    Args:
        work: The file of the shard, and the directory of its index.
        width: Dimension of the vectors.
        fingerprint: Of the model.
        k: For `Index.tune`; None leaves it out.
        fields: For `Index.index_field`.

    Returns:
        The directory.
    """
    file, directory = work
    if pathlib.Path(directory).exists():
        return directory
    with replacing(directory) as temporary, Index.create(temporary, width, fingerprint) as index:
        if fields:
            index.index_field(*fields)
        for names, part in bulk_shards.parts(file, 65_536):
            index.add(part, names, [{"path": name} for name in names])
        if k is not None and len(index):
            index.tune(min(k, len(index)), progress=False)
    return directory

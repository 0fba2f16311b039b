"""A whole catalog through an embedder, on one machine or on a cluster: the same Apache Beam pipeline."""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np

from tf_detreg import checks, extras
from tf_detreg.retrieval import bulk_shards

_SHARD = re.compile(r"embeddings-(\d{5})-of-(\d{5})\.(tfrecord|parquet)")


@dataclasses.dataclass(frozen=True)
class BulkResult:
    """What a bulk embedding did.

    Args:
        embedded: Number of images in the shards.
        unreadable: Number of images set aside.
        output: The folder.
        kept: Number of shards that an earlier run had finished. Default 0.
    """

    embedded: int
    unreadable: int
    output: str
    kept: int = 0

    def summary(self) -> str:
        """Return a sentence or three."""
        text = f"{self.embedded:,} images embedded in {self.output}."
        if self.kept:
            text += f" {self.kept} shards were there already and were kept."
        if self.unreadable:
            text += f" {self.unreadable:,} could not be read; they are listed in unreadable-*.jsonl there."
        return text


def bulk_embed(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    embedder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    shards: int = 16,
    format: str = "tfrecord",
    options: Sequence[str] = (),
) -> BulkResult:
    """Embed all images that the patterns match, into shards.

    A record of `embeddings-00000-of-00016.tfrecord` is a `tf.train.Example` with `path` and `embedding`; a row of
    `embeddings-00000-of-00016.parquet` has `id`, the path, and `vector`. `read_embeddings` reads all of either kind. An
    image that cannot be decoded is counted and set aside with the reason, in `unreadable-….jsonl`, and stops nothing.

    An image's shard depends on its path alone, and a shard gets its name when it is whole. So the same call made again
    goes on where the last one was stopped: shards that are done, and whose images are the same, are kept.

    Args:
        images: Folders, files or patterns (`gs://bucket/shop/**.jpg`), anything that Beam's file systems can read.
            Of a folder, files named like pictures are taken, at any depth.
        embedder: A `.keras` file, on a file system that every worker can read.
        output: A folder, on a file system that every worker can write.
        batch_size: Images that go through the network together. Default 64.
        shards: Number of output files. Default 16. Workers share the shards out among them and lose what they have of
            a shard when they are stopped: take several times as many shards as workers, and at most some 100,000
            images in each.
        format: `"tfrecord"`, the default, or `"parquet"`, which takes pyarrow on every worker.
        options: Beam's pipeline options, such as `["--runner=FlinkRunner", "--flink_master=host:8081"]`. Default:
            this machine, one worker; `["--direct_running_mode=multi_processing", "--direct_num_workers=4"]` for more.

    Returns:
        How many images were embedded and how many were not, those of kept shards included.

    Raises:
        ImportError: Without Apache Beam, or pyarrow for Parquet, with the pip line.
        ValueError: If no image matches; before any work, if an option is wrong, or the folder holds what another call
            began: another number or format of shards, other patterns or another embedder.

    Example:
        >>> bulk_embed("catalog/", "runs/shop/embedder.keras", "vectors/").summary()  # doctest: +SKIP
        '10,000 images embedded in vectors.'
    """
    batch_size = checks.integer("batch_size", batch_size, 1)
    shards = checks.integer("shards", shards, 1, 99_999)
    checks.choice("format", format, bulk_shards.FORMATS)
    with extras.needed("Bulk embedding"):
        import apache_beam as beam
    if format == "parquet":
        from tf_detreg.retrieval import parquet

        parquet.require()
    from apache_beam.options.pipeline_options import PipelineOptions

    from tf_detreg.retrieval import beam_stages

    given = tuple(os.fspath(one) for one in ([images] if isinstance(images, str | os.PathLike) else images))
    output, embedder = os.fspath(output), os.fspath(embedder)
    plan = bulk_shards.Plan(shards, format, beam_stages.digest_of(embedder), given)
    done_before = beam_stages.claim(plan, output)
    pipeline = beam.Pipeline(options=PipelineOptions(list(options)))
    beam_stages.build(pipeline, plan, embedder, output, batch_size)
    pipeline.run().wait_until_finish()
    marks = beam_stages.marks(output, plan.shards)
    embedded, unreadable = (sum(mark[name] for mark in marks.values()) for name in ("embedded", "unreadable"))
    if not embedded + unreadable:
        raise ValueError(f"`images` must match pictures; received {list(given)!r}, which match no picture.")
    kept = sum(marks[shard]["time"] == mark["time"] for shard, mark in done_before.items())
    return BulkResult(embedded, unreadable, output, kept)


def iterate_embeddings(folder: str | os.PathLike[str], rows: int = 4096) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield paths and embeddings (n, dim), shard by shard, in bounded memory.

    Args:
        folder: Of the shards.
        rows: The most of them at a time. Default 4096.

    Raises:
        ValueError: If there are no shards, or some are missing.
    """
    for file in shard_files(os.fspath(folder)):
        yield from bulk_shards.parts(file, rows)


def read_embeddings(folder: str | os.PathLike[str]) -> tuple[list[str], np.ndarray]:
    """Return paths and embeddings (N, dim) of all shards in a folder, sorted by path.

    `iterate_embeddings` reads them in bounded memory.

    Raises:
        ValueError: If there are no shards, or some are missing.
    """
    paths, rows = [], []
    for names, vectors in iterate_embeddings(folder):
        paths += names
        rows.append(vectors)
    order = sorted(range(len(paths)), key=paths.__getitem__)
    found = np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
    return [paths[place] for place in order], found[order]


def shard_files(folder: str) -> list[str]:
    """Return the files of all shards.

    Raises:
        ValueError: If there are none, or they are not of one run.
    """
    import tensorflow as tf

    names = [os.path.basename(file) for file in tf.io.gfile.glob(os.path.join(folder, "embeddings-*-of-*"))]
    found = sorted(name for name in names if _SHARD.fullmatch(name))
    if not found:
        raise ValueError(f"`folder` must hold embeddings-*.tfrecord or .parquet; received {folder!r}, which has none.")
    announced, *others = sorted({name.partition("-of-")[2] for name in found})
    if others:
        counts = " and of ".join(f"{int(name[:5])} ({name[6:]})" for name in (announced, *others))
        raise ValueError(
            f"`folder` must hold the shards of one run; received {folder!r} with shards of several runs, of {counts}. "
            "Delete those of the older ones, or embed into a new folder."
        )
    count = int(announced[:5])
    if len(found) != count:
        raise ValueError(
            f"`folder` must hold all shards; received {folder!r} with {len(found)} of {count} shards. Run the "
            "embedding again."
        )
    return [os.path.join(folder, name) for name in found]

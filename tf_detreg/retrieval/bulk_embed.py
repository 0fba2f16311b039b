"""A whole catalogue through an embedder, on one machine or on a cluster: the same Apache Beam pipeline."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from tf_detreg import checks, extras


@dataclasses.dataclass(frozen=True)
class BulkResult:
    """What a bulk embedding did.

    Args:
        embedded: Number of images in the shards.
        unreadable: Number of images set aside.
        output: The folder.
    """

    embedded: int
    unreadable: int
    output: str

    def summary(self) -> str:
        """A sentence."""
        text = f"{self.embedded:,} images embedded in {self.output}."
        if self.unreadable:
            text += f" {self.unreadable:,} could not be read; they are listed in unreadable-*.jsonl there."
        return text


def bulk_embed(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    embedder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    shards: int = 0,
    options: Sequence[str] = (),
) -> BulkResult:
    """Embeds all images that the patterns match, into sharded TFRecord files.

    Each record of `embeddings-00000-of-00008.tfrecord` is a `tf.train.Example` with `path` and `embedding`;
    `read_embeddings` reads them all. An image that cannot be decoded is counted and set aside with the reason, in
    `unreadable-….jsonl`, and stops nothing. Shards appear under their names only when they are whole.

    Args:
        images: Folders, files or patterns (`gs://bucket/shop/**.jpg`), anything that Beam's file systems can read.
            Of a folder, files named like pictures are taken, at any depth.
        embedder: A `.keras` file, on a file system that every worker can read.
        output: A folder, on a file system that every worker can write.
        batch_size: Images that go through the network together. Default 64.
        shards: Number of output files. Default 0: the runner decides.
        options: Beam's pipeline options, such as `["--runner=FlinkRunner", "--flink_master=host:8081"]`. Default:
            this machine, one worker; `["--direct_running_mode=multi_processing", "--direct_num_workers=4"]` for more.

    Returns:
        How many images were embedded and how many were not.

    Raises:
        ImportError: Without Apache Beam, with the pip line.
        ValueError: If no image matches.

    Example:
        >>> bulk_embed("catalogue/", "runs/shop/embedder.keras", "vectors/").summary()  # doctest: +SKIP
        '10,000 images embedded in vectors.'
    """
    with extras.needed("Bulk embedding"):
        import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from tf_detreg.retrieval import beam_stages

    batch_size = checks.integer("batch_size", batch_size, 1)
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    output = os.fspath(output)
    pipeline = beam.Pipeline(options=PipelineOptions(list(options)))
    beam_stages.build(pipeline, [os.fspath(one) for one in given], os.fspath(embedder), output, batch_size, shards)
    result = pipeline.run()
    result.wait_until_finish()
    counts = beam_stages.counts(result)
    if not sum(counts.values()):
        raise ValueError(f"`images` must match pictures; received {given!r}, which match no picture.")
    return BulkResult(counts["embedded"], counts["unreadable"], output)


def read_embeddings(folder: str | os.PathLike[str]) -> tuple[list[str], np.ndarray]:
    """Paths and embeddings (N, dim) of all shards in a folder, sorted by path.

    Raises:
        ValueError: If there are no shards, or some are missing.
    """
    import tensorflow as tf

    files = sorted(tf.io.gfile.glob(os.path.join(os.fspath(folder), "embeddings-*-of-*.tfrecord")))
    if not files:
        raise ValueError(f"`folder` must hold embeddings-*.tfrecord; received {str(folder)!r}, which holds none.")
    announced, *others = sorted({int(file.removesuffix(".tfrecord").rsplit("-", 1)[1]) for file in files})
    if others:
        counts = " and of ".join(map(str, [announced, *others]))
        raise ValueError(
            f"`folder` must hold the shards of one run; received {str(folder)!r} with shards of several runs, of "
            f"{counts}. "
            "Delete those of the older ones, or embed into a new folder."
        )
    if len(files) != announced:
        raise ValueError(
            f"`folder` must hold all shards; received {str(folder)!r} with {len(files)} of {announced} shards. Run "
            "the embedding again."
        )
    layout = {
        "path": tf.io.FixedLenFeature((), tf.string),
        "embedding": tf.io.FixedLenSequenceFeature((), tf.float32, allow_missing=True),
    }
    records = tf.data.TFRecordDataset(files).batch(4096).map(lambda batch: tf.io.parse_example(batch, layout))
    parts = [(part["path"].numpy(), part["embedding"].numpy()) for part in records]
    paths = np.concatenate([names for names, _ in parts])
    order = np.argsort(paths)
    return [path.decode() for path in paths[order]], np.concatenate([rows for _, rows in parts])[order]

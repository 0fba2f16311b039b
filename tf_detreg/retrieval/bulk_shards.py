"""The shards of a bulk embedding: what they are called, how one is written and how all are read.

A folder of shards holds::

    plan.json                               what was asked for: number and format of shards, model, images
    embeddings-00003-of-00016.parquet       the vectors of a shard (or .tfrecord)
    unreadable-00003-of-00016.jsonl         its images that could not be read, if there are any
    done-00003-of-00016.json                the mark of a whole shard: how many images, and a digest of their names

The mark is written last. A run that is begun again keeps the shards whose mark fits the images, and makes the others.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

FORMATS = ("tfrecord", "parquet")
PLAN = "plan.json"
Write = Callable[[Sequence[str], np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a bulk embedding was asked for; another one may not write into its folder.

    Args:
        shards: Number of shards.
        format: `"tfrecord"` or `"parquet"`.
        model: Digest of the embedder's file.
        images: The folders, files and patterns.
    """

    shards: int
    format: str
    model: str
    images: tuple[str, ...]

    def to_json(self) -> str:
        """Return the content of `plan.json`."""
        return json.dumps({**dataclasses.asdict(self), "version": 1}, indent=1)

    def check(self, text: str, output: str) -> None:
        """Compare with the `plan.json` of a folder.

        Raises:
            ValueError: If the folder's shards were asked for differently.
        """
        advice = "Ask for the same, or embed into a new folder."
        try:
            found = json.loads(text)
            there = Plan(found["shards"], found["format"], found["model"], tuple(found["images"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"`output`={output!r} holds a damaged {PLAN} ({error}). Embed into a new folder."
            ) from error
        for name in ("shards", "format", "images"):
            if getattr(self, name) != getattr(there, name):
                raise ValueError(
                    f"`{name}` must be {getattr(there, name)!r}, with which {output!r} was begun; received "
                    f"{getattr(self, name)!r}. {advice}"
                )
        if self.model != there.model:
            raise ValueError(
                f"`embedder` must be the one with which {output!r} was begun; received another. Embed into a new "
                "folder."
            )


def shard_of(path: str, shards: int) -> int:
    """Return the shard of an image: the same in every run and on every machine.

    It is the 8-byte BLAKE2b digest of the path, modulo the shards. A checksum such as CRC-32 would not do: it puts
    `mug/0.jpg` to `mug/7.jpg` into one shard.

    Example:
        >>> shard_of("gs://shop/mug.jpg", 16)
        11
    """
    found = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(found, "big") % shards


def name_of(kind: str, shard: int, shards: int, ending: str) -> str:
    """Return the name of a shard's file.

    Example:
        >>> name_of("embeddings", 3, 16, "parquet")
        'embeddings-00003-of-00016.parquet'
    """
    return f"{kind}-{shard:05}-of-{shards:05}.{ending}"


def digest(paths: Iterable[str]) -> str:
    """Return a digest of a shard's images, in order."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()


@contextlib.contextmanager
def writing(path: pathlib.Path, format: str, dimension: int) -> Iterator[Write]:
    """Write a shard in parts, so that no more than a part is in memory.

    Args:
        path: The file, on this machine.
        format: `"tfrecord"` or `"parquet"`.
        dimension: Of the vectors.

    Yields:
        A function of names and vectors (n, dim), which adds rows.
    """
    if format == "parquet":
        from tf_detreg.retrieval import parquet

        with parquet.writing(path, parquet.schema(dimension)) as write:
            yield write
        return
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as file:

        def add(paths: Sequence[str], vectors: np.ndarray) -> None:
            for name, vector in zip(paths, vectors, strict=True):
                file.write(record(name, vector))

        yield add


def record(path: str, vector: np.ndarray) -> bytes:
    """Return one image as a serialized `tf.train.Example` with `path` and `embedding`."""
    import tensorflow as tf

    feature = {
        "path": tf.train.Feature(bytes_list=tf.train.BytesList(value=[path.encode("utf-8", "surrogateescape")])),
        "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=vector)),
    }
    message: bytes = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    return message


def parts(path: str, rows: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield names and vectors (n, dim) of a shard, at most so many rows at a time."""
    yield from (_of_parquet if path.endswith(".parquet") else _of_records)(path, rows)


def _of_records(path: str, rows: int) -> Iterator[tuple[list[str], np.ndarray]]:
    import tensorflow as tf

    layout = {
        "path": tf.io.FixedLenFeature((), tf.string),
        "embedding": tf.io.FixedLenSequenceFeature((), tf.float32, allow_missing=True),
    }
    for batch in tf.data.TFRecordDataset(path).batch(rows).map(lambda batch: tf.io.parse_example(batch, layout)):
        names = [name.decode("utf-8", "surrogateescape") for name in batch["path"].numpy()]
        yield names, batch["embedding"].numpy()


def _of_parquet(path: str, rows: int) -> Iterator[tuple[list[str], np.ndarray]]:
    from tf_detreg.retrieval import parquet

    parquet.require()
    import pyarrow.fs
    import pyarrow.parquet as pq

    local = "://" not in path
    place, inside = (pyarrow.fs.LocalFileSystem(), path) if local else pyarrow.fs.FileSystem.from_uri(path)
    with place.open_input_file(inside) as file:
        content: Any = pq.ParquetFile(file)
        for batch in content.iter_batches(rows):
            vectors = batch.column(parquet.VECTOR)
            yield (
                batch.column(parquet.ID).to_pylist(),
                np.asarray(vectors.flatten(), np.float32).reshape(len(vectors), -1),
            )

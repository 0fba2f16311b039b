"""The stages of the bulk embedding. Imports Apache Beam, so import this module only where Beam is wanted."""

import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.utils.shared import Shared

_NAMESPACE = "tf_detreg"
_UNREADABLE = "unreadable"


def build(pipeline: Any, images: list[str], embedder: str, output: str, batch_size: int, shards: int) -> None:
    """patterns → files → batches → embeddings → shards, with the unreadable ones on a path of their own."""
    patterns = [pattern for one in images for pattern in _patterns(one)]
    found = (
        pipeline
        | "patterns" >> beam.Create(patterns)
        | "match" >> fileio.MatchAll(empty_match_treatment=fileio.EmptyMatchTreatment.ALLOW)
        | "paths" >> beam.Map(lambda metadata: metadata.path)
        | "pictures" >> beam.Filter(_Wanted(images))
        # One worker matches; reading and embedding is spread over all.
        | "spread" >> beam.Reshuffle()
        | "batch" >> beam.BatchElements(min_batch_size=batch_size, max_batch_size=batch_size)
        | "embed" >> beam.ParDo(_Embed(embedder, Shared())).with_outputs(_UNREADABLE, main="embedded")
    )
    (
        found.embedded
        | "record" >> beam.MapTuple(record)
        | "write"
        >> beam.io.WriteToTFRecord(_join(output, "embeddings"), file_name_suffix=".tfrecord", num_shards=shards)
    )
    (
        found[_UNREADABLE]
        | "json" >> beam.Map(json.dumps, ensure_ascii=False)
        | "set aside" >> beam.io.WriteToText(_join(output, _UNREADABLE), file_name_suffix=".jsonl", skip_if_empty=True)
    )


def record(path: str, vector: np.ndarray) -> bytes:
    """One image as a serialized `tf.train.Example` with `path` and `embedding`."""
    import tensorflow as tf

    feature = {
        "path": tf.train.Feature(bytes_list=tf.train.BytesList(value=[path.encode()])),
        "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=vector)),
    }
    result: bytes = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    return result


def counts(result: Any) -> dict[str, int]:
    """How many images were embedded and how many could not be read."""
    totals = {"embedded": 0, _UNREADABLE: 0}
    for metric in result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]:
        totals[metric.key.metric.name] += metric.result
    return totals


_join = FileSystems.join


def _is_folder(path: str) -> bool:
    """A path without a pattern, that does not end like a picture, is a folder."""
    return not any(sign in path for sign in "*?[") and not _is_picture(path)


def _is_picture(path: str) -> bool:
    from tf_detreg.images import is_image_name

    return is_image_name(FileSystems.split(path)[1])


def _patterns(path: str) -> list[str]:
    return [_join(path, "**")] if _is_folder(path) else [path]


class _Wanted:
    """Of folders, only what is named like a picture; of patterns, everything that they match."""

    def __init__(self, images: list[str]) -> None:
        self.folders = [one for one in images if _is_folder(one)]

    def __call__(self, path: str) -> bool:
        return _is_picture(path) or not any(path.startswith(folder) for folder in self.folders)


class _Embed(beam.DoFn):
    """A batch of paths → (path, embedding), and {path, reason} for what cannot be read."""

    def __init__(self, embedder: str, shared: Shared) -> None:
        self.path, self.shared = embedder, shared
        self.embedded = Metrics.counter(_NAMESPACE, "embedded")
        self.unreadable = Metrics.counter(_NAMESPACE, _UNREADABLE)

    def setup(self) -> None:
        # One model for all threads of a worker process.
        self.model = self.shared.acquire(lambda: _Model(self.path))

    def process(self, batch: Any) -> Iterator[Any]:
        from tf_detreg.images import UnreadableImage, decode

        kept, pixels = [], []
        for path in batch:
            try:
                with FileSystems.open(path) as file:
                    pixels.append(decode(file.read(), self.model.size))
                kept.append(path)
            except (UnreadableImage, OSError) as error:
                self.unreadable.inc()
                yield beam.pvalue.TaggedOutput(_UNREADABLE, {"path": path, "reason": str(error)})
        if kept:
            self.embedded.inc(len(kept))
            yield from zip(kept, self.model(np.stack(pixels)), strict=True)


class _Model:
    """The embedder, read through Beam's file systems."""

    def __init__(self, path: str) -> None:
        import tf_detreg
        from tf_detreg.inference import traced

        with FileSystems.open(path) as file, tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / "embedder.keras"
            local.write_bytes(file.read())
            self._embedder = tf_detreg.load(local)
        self._run = traced(self._embedder)
        self.size = tuple(self._embedder.input_shape[1:3])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._run(pixels.astype(np.float32)).numpy().astype(np.float32, copy=False)
        return result

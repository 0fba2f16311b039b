"""The stages of the bulk embedding. Imports Apache Beam, so import this module only where Beam is wanted."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from tf_detreg.retrieval import bulk_shards
from tf_detreg.retrieval.bulk_shards import PLAN, Plan, name_of

_join = FileSystems.join
_PLAIN = CompressionTypes.UNCOMPRESSED  # or a name such as `x.gz` decides


def build(pipeline: beam.Pipeline, plan: Plan, embedder: str, output: str, batch_size: int) -> None:
    """Lay out the pipeline: patterns → files → the images of each shard → a file a shard."""
    images = list(plan.images)
    paths = (
        pipeline
        | "patterns" >> beam.Create([pattern for one in images for pattern in _patterns(one)])
        | "match" >> fileio.MatchAll(empty_match_treatment=fileio.EmptyMatchTreatment.ALLOW)
        | "paths" >> beam.Map(lambda metadata: metadata.path)
        | "pictures" >> beam.Filter(_Wanted(images))
        | "assign" >> beam.Map(lambda path, shards: (bulk_shards.shard_of(path, shards), path), plan.shards)
    )
    # A shard without images is written too, so that all are there when all is done.
    every = pipeline | "shards" >> beam.Create([(shard, None) for shard in range(plan.shards)])
    (
        {"paths": paths, "every": every}
        | "gather" >> beam.CoGroupByKey()
        | "embed" >> beam.ParDo(_EmbedShard(plan, embedder, output, batch_size, Shared()))
    )


def each(work: Sequence[Any], function: Callable[..., Any], more: Sequence[Any], options: Sequence[str]) -> None:
    """Call a function of each piece of work, on the pipeline's workers.

    Args:
        work: The pieces.
        function: What takes a piece and `more`; a function of a module, so that workers find it.
        more: Its other arguments.
        options: Beam's pipeline options.
    """
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        pipeline | beam.Create(list(work)) | beam.Reshuffle() | beam.Map(function, *more)


def digest_of(file: str) -> str:
    """Return the SHA-256 of a file.

    Raises:
        ValueError: If it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with FileSystems.open(file, compression_type=_PLAIN) as content:
            while block := content.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise ValueError(f"`embedder`={file!r} cannot be read: {error}.") from error
    return found.hexdigest()


def claim(plan: Plan, output: str) -> dict[int, dict[str, Any]]:
    """Write the plan into the output folder, and return the marks of shards that are done.

    Raises:
        ValueError: If the folder holds what another plan began.
    """
    place = _join(output, PLAN)
    if _exists(place):
        plan.check(_read(place).decode(), output)
        return marks(output, plan.shards)
    if _listed(_join(output, "embeddings-*-of-*")):
        raise ValueError(
            f"`output`={output!r} holds shards without a {PLAN}, of an earlier version: they cannot be gone on with. "
            "Embed into a new folder."
        )
    with contextlib.suppress(OSError, BeamIOError):  # it is there already, or the file system has no folders
        FileSystems.mkdirs(output)
    _write(place, plan.to_json().encode())
    return {}


def marks(output: str, shards: int) -> dict[int, dict[str, Any]]:
    """Return the marks of the shards that are done, by number."""
    found = {}
    for path in _listed(_join(output, f"done-*-of-{shards:05}.json")):
        with contextlib.suppress(ValueError):  # of a file system that showed half a file
            mark = json.loads(_read(path))
            found[int(mark["shard"])] = mark
    return found


class _EmbedShard(beam.DoFn):
    """The paths of a shard → its files."""

    def __init__(self, plan: Plan, embedder: str, output: str, batch_size: int, shared: Shared) -> None:
        self.plan, self.path, self.output, self.batch_size = plan, embedder, output, batch_size
        self.shared = shared

    def process(self, element: tuple[int, dict[str, Any]]) -> None:
        shard, gathered = element
        paths = sorted(set(gathered["paths"]))
        name = {
            kind: _join(self.output, name_of(kind, shard, self.plan.shards, ending))
            for kind, ending in (("embeddings", self.plan.format), ("unreadable", "jsonl"), ("done", "json"))
        }
        images = bulk_shards.digest(paths)
        if _is_done(name["done"], images) and _exists(name["embeddings"]):
            return
        # What is there is of other images; without its mark it is as if it were not there.
        _delete([path for path in name.values() if _exists(path)])
        # One model for all threads of a worker process.
        model = self.shared.acquire(lambda: _Model(self.path))
        with tempfile.TemporaryDirectory() as folder:
            local, aside = pathlib.Path(folder, "embeddings"), pathlib.Path(folder, "unreadable")
            embedded, unreadable = _embed(paths, model, self.batch_size, self.plan.format, local, aside)
            _upload(local, name["embeddings"])
            if unreadable:
                _upload(aside, name["unreadable"])
        mark = {"shard": shard, "embedded": embedded, "unreadable": unreadable, "images": images, "time": time.time()}
        _write(name["done"], json.dumps(mark).encode())


def _embed(
    paths: Sequence[str], model: "_Model", batch_size: int, format: str, local: pathlib.Path, aside: pathlib.Path
) -> tuple[int, int]:
    """Write two local files, of what was embedded and of what could not be read; return how many each holds."""
    embedded = unreadable = 0
    with bulk_shards.writing(local, format, model.dimension) as write, aside.open("w", encoding="utf-8") as failures:
        for start in range(0, len(paths), batch_size):
            kept, pixels = [], []
            for path, image in _decoded(paths[start : start + batch_size], model.size):
                if isinstance(image, str):
                    failures.write(json.dumps({"path": path, "reason": image}) + "\n")
                    unreadable += 1
                else:
                    kept.append(path)
                    pixels.append(image)
            if kept:
                write(kept, model(np.stack(pixels)))
                embedded += len(kept)
    return embedded, unreadable


def _decoded(paths: Sequence[str], size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray | str]]:
    """Yield each path with its pixels, or with why there are none."""
    from tf_detreg.images import UnreadableImage, decode

    for path in paths:
        try:
            with FileSystems.open(path, compression_type=_PLAIN) as file:
                yield path, decode(file.read(), size)
        except (UnreadableImage, OSError) as error:
            yield path, str(error)


class _Model:
    """The embedder, read through Beam's file systems."""

    def __init__(self, path: str) -> None:
        import tf_detreg
        from tf_detreg.inference import traced

        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / "embedder.keras"
            with FileSystems.open(path, compression_type=_PLAIN) as file, local.open("wb") as copy:
                shutil.copyfileobj(file, copy)
            self._embedder = tf_detreg.load(local)
        self._run = traced(self._embedder)
        height, width = self._embedder.input_shape[1:3]
        self.size, self.dimension = (height, width), int(self._embedder.output_shape[-1])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._run(pixels.astype(np.float32)).numpy().astype(np.float32, copy=False)
        return found


class _Wanted:
    """Of folders, only what is named like a picture; of patterns, everything that they match."""

    def __init__(self, images: list[str]) -> None:
        self.folders = [one for one in images if _is_folder(one)]

    def __call__(self, path: str) -> bool:
        return _is_picture(path) or not any(path.startswith(folder) for folder in self.folders)


def _is_folder(path: str) -> bool:
    """Return a path without a pattern, that does not end like a picture, is a folder."""
    return not any(sign in path for sign in "*?[") and not _is_picture(path)


def _is_picture(path: str) -> bool:
    from tf_detreg.images import is_image_name

    return is_image_name(FileSystems.split(path)[1])


def _patterns(path: str) -> list[str]:
    return [_join(path, "**")] if _is_folder(path) else [path]


def _is_done(path: str, images: str) -> bool:
    if not _exists(path):
        return False
    try:
        return bool(json.loads(_read(path))["images"] == images)
    except (ValueError, KeyError, TypeError):
        return False


def _exists(path: str) -> bool:
    return bool(FileSystems.exists(path))


def _listed(pattern: str) -> list[str]:
    (found,) = FileSystems.match([pattern])
    return [metadata.path for metadata in found.metadata_list]


def _read(path: str) -> bytes:
    with FileSystems.open(path, compression_type=_PLAIN) as file:
        content: bytes = file.read()
    return content


def _write(path: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder, "content")
        local.write_bytes(content)
        _upload(local, path)


def _upload(local: pathlib.Path, path: str) -> None:
    """Copy a local file under a temporary name and rename it, so that a name that is there is that of a whole file."""
    part = f"{path}.part"
    with local.open("rb") as file, FileSystems.create(part, compression_type=_PLAIN) as copy:
        shutil.copyfileobj(file, copy)
    FileSystems.rename([part], [path])


def _delete(paths: list[str]) -> None:
    if paths:
        FileSystems.delete(paths)

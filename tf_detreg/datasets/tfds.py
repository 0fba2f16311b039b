"""Data sets of TensorFlow Datasets: it downloads and checks them, we split them by class."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_detreg import deprecated, extras
from tf_detreg.datasets.benchmarks import Benchmark
from tf_detreg.datasets.cache import cache_folder
from tf_detreg.datasets.cars import COUNTS as CARS_COUNTS
from tf_detreg.datasets.cars import WHOLE as CARS
from tf_detreg.datasets.cub import COUNTS as CUB_COUNTS
from tf_detreg.datasets.cub import CUB
from tf_detreg.datasets.image_set import ImageSet, Size, Splits, hold_out, split_by_class
from tf_detreg.datasets.sop import COUNTS as SOP_COUNTS
from tf_detreg.datasets.sop import SOP
from tf_detreg.files import replacing, write_json

logger = logging.getLogger(__name__)

_LIST = "images.json"


@dataclass(frozen=True)
class _Fields:
    """Which features of a data set hold the class, its name and a second label; the image is always `image`."""

    label: str = "label"
    name: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class _ZeroShot:
    """The split of a benchmark for metric learning: its first classes train, the others test."""

    benchmark: Benchmark
    train_classes: int
    train_images: int
    test_images: int
    fields: _Fields = _Fields()


_ZERO_SHOT = {
    "caltech_birds2011": _ZeroShot(CUB, 100, CUB_COUNTS["train"], CUB_COUNTS["test"], _Fields(name="label_name")),
    "cars196": _ZeroShot(CARS, 98, CARS_COUNTS["train"], CARS_COUNTS["test"]),
    "stanford_online_products": _ZeroShot(
        SOP, 11318, SOP_COUNTS["train"][0], SOP_COUNTS["test"][0], _Fields("class_id", group="super_class_id")
    ),
}


@deprecated.renamed_arguments(data_dir="directory")
def tfds(
    dataset: str,
    image_size: Size = 224,
    validation: float = 0.2,
    test: float = 0.3,
    seed: int = 0,
    check: bool = True,
    directory: str | os.PathLike[str] | None = None,
) -> Splits:
    """Load a data set of TensorFlow Datasets that has images and one class label each.

    `caltech_birds2011` (CUB-200-2011), `cars196` and `stanford_online_products` get the zero-shot split of the papers,
    whose first classes train. Any other data set is split by class at random. In both cases the data set's own splits,
    which share their classes, are put together first.

    TensorFlow Datasets downloads and prepares what is not there. The encoded images are then written once, as they are,
    below `$TF_DETREG_CACHE/tfds`, so that crops, batches and cached features read them like any other files.

    Args:
        dataset: Its name, such as "cars196" or "oxford_flowers102:2.1.1".
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        validation: Share of the classes for validation; for the three benchmarks, of the train classes. Default
            0.2.
        test: Share of the classes for testing, where no benchmark says it. Default 0.3.
        seed: Of the deal. Default 0.
        check: Insist on a benchmark's official counts. Default True.
        directory: Where TensorFlow Datasets keeps its data; by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
        ImportError: Without tensorflow-datasets, with the pip line.
        ValueError: For a name that is not known, a data set without images and labels, or wrong counts.
        OSError: If it could be neither found nor prepared, with what to do.

    Example:
    >>> from tf_detreg import datasets
    >>> splits = datasets.tfds("cars196", validation=0)  # doctest: +SKIP
    >>> len(splits.train), len(splits.test)  # doctest: +SKIP
    (8054, 8131)
    """
    builder = _prepared(dataset, directory)
    rule = _ZERO_SHOT.get(builder.name)
    fields = rule.fields if rule else _Fields()
    listed = _exported(builder, fields)
    everything = np.arange(len(listed["labels"]))
    if rule is None:
        page = Benchmark(builder.name, builder.info.homepage, ())
        return split_by_class(_image_set(page, listed, everything, image_size, "all"), validation, test, seed)
    first = np.asarray(listed["labels"]) < rule.train_classes
    parts = {}
    for part, chosen, images in (("train", first, rule.train_images), ("test", ~first, rule.test_images)):
        rule.benchmark.check(f"{part} images", int(chosen.sum()), images if check else None)
        parts[part] = _image_set(rule.benchmark, listed, everything[chosen], image_size, part)
    return Splits(*hold_out(parts["train"], validation, seed), parts["test"])


def _prepared(dataset: str, directory: str | os.PathLike[str] | None) -> Any:
    """Return the builder of a data set, with its data on disk."""
    with extras.needed("A data set by name"):
        import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(dataset, data_dir=directory)
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        known = tensorflow_datasets.list_builders(with_community_datasets=False)
        near = ", ".join(difflib.get_close_matches(dataset.partition(":")[0], known, n=5, cutoff=0.5))
        hint = f" Near are: {near}." if near else f" It knows {len(known)}: tensorflow_datasets.list_builders()."
        raise ValueError(f"`dataset`: TensorFlow Datasets has no {dataset!r}.{hint}") from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # each data set downloads and unpacks in its own way, and fails in its own
        own = " Or unpack the official files yourself and use their loader." if builder.name in _ZERO_SHOT else ""
        raise OSError(
            f"TensorFlow Datasets could not prepare {dataset!r} in {builder.data_dir} "
            f"({type(error).__name__}: {error}). Where there is a network, `tfds build {dataset}` prepares it; "
            f"TFDS_DATA_DIR says where it lies.{own}"
        ) from error
    return builder


def _exported(builder: Any, fields: _Fields) -> dict[str, Any]:
    """Return the encoded images as files, and a list of them; written once for the prepared data of this place."""
    sizes = sorted((name, split.num_examples, split.num_bytes) for name, split in builder.info.splits.items())
    mark = hashlib.sha256(f"{os.path.abspath(builder.data_dir)} {sizes}".encode()).hexdigest()[:12]
    place = cache_folder() / "tfds" / f"{builder.name}-{builder.version}-{mark}"
    if not (place / _LIST).is_file():
        _check_features(builder, fields)
        logger.info("Writing the images of %s to %s, once.", builder.info.full_name, place)
        with replacing(place, durable=False) as folder:
            _write(builder, fields, folder)
    return {**json.loads((place / _LIST).read_text("utf-8")), "root": place}


def _check_features(builder: Any, fields: _Fields) -> None:
    from tensorflow_datasets import features

    there = builder.info.features
    for key, kind in (("image", features.Image), (fields.label, features.ClassLabel)):
        if not isinstance(dict(there).get(key), kind):
            raise ValueError(
                f"`dataset`: {builder.name} has no feature {key!r} of kind {kind.__name__}; it has {', '.join(there)}."
            )


def _write(builder: Any, fields: _Fields, folder: pathlib.Path) -> None:
    from tensorflow_datasets import decode

    wanted = ["image", fields.label, *(key for key in (fields.name, fields.group) if key)]
    decoders = decode.PartialDecoding(dict.fromkeys(wanted, True), decoders={"image": decode.SkipDecoding()})
    paths: list[str] = []
    labels: list[int] = []
    names: dict[int, str] = {}
    groups: list[int] = []
    for split in sorted(builder.info.splits):
        rows = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
        for row in rows.as_numpy_iterator():
            label = int(row[fields.label])
            ending = "jpg" if row["image"].startswith(b"\xff\xd8") else "png"
            paths.append(f"{label:05d}/{split}-{len(paths):06d}.{ending}")
            (folder / paths[-1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / paths[-1]).write_bytes(row["image"])
            labels.append(label)
            names[label] = _name(builder, fields, row)
            if fields.group:
                groups.append(int(row[fields.group]))
    write_json(folder / _LIST, {"paths": paths, "labels": labels, "names": names, "groups": groups or None})


def _name(builder: Any, fields: _Fields, row: dict[str, Any]) -> str:
    if fields.name:
        result: str = row[fields.name].decode()
        return result
    name = builder.info.features[fields.label].int2str(int(row[fields.label]))
    return f"{builder.info.features[fields.group].int2str(int(row[fields.group]))} {name}" if fields.group else name


def _image_set(benchmark: Benchmark, listed: dict[str, Any], rows: np.ndarray, image_size: Size, part: str) -> ImageSet:
    groups = None if listed["groups"] is None else np.asarray(listed["groups"], np.int32)[rows]
    return benchmark.image_set(
        listed["root"],
        [listed["paths"][row] for row in rows],
        [listed["labels"][row] for row in rows],
        lambda label: listed["names"][str(label)],
        image_size,
        part,
        groups=groups,
    )

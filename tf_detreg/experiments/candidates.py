"""Which backbone suits a set of photos: candidates measured on their validation classes before anything is trained."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import checks, extras, retrieval, training
from tf_detreg.files import replacing, write_json
from tf_detreg.images.geometry import height_width
from tf_detreg.progress import ticker
from tf_detreg.training import RunConfig, assembly

Interval = tuple[float, float]

# Tried without a name: one from a wheel, and two whose download is below 100 MB.
DEFAULT = ("efficientnet_lite0", "hub:mobilenet_v3_large_100_imagenet", "hub:dinov2_small@224")
_HEAD_DIM, _HEAD_RATE = 128, 1e-2


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a frozen backbone is worth on validation classes.

    Attributes:
        recall: R@1, a share.
        recall_interval: Its 95 % bootstrap interval over classes.
        map_at_r: MAP@R, a share.
        map_interval: Its interval.
    """

    recall: float
    recall_interval: Interval
    map_at_r: float
    map_interval: Interval


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One backbone, measured.

    Attributes:
        name: As `train --backbone` takes it.
        weights: As `train --weights` takes them, or None.
        image_size: (height, width) of the images.
        features: How many it gives.
        parameters: How many it has.
        int8_megabytes: Size with weights of 8 bits, in MB (10⁶ bytes): a byte for each weight of a kernel, four for
            biases and scales. A `.tflite` file is some percent larger.
        images_per_second: Of the model alone on this machine, in batches, decoding not counted.
        frozen: What the features are worth as they are.
        linear: What a linear head of some epochs makes of them, or None.
    """

    name: str
    weights: str | None
    image_size: tuple[int, int]
    features: int
    parameters: int
    int8_megabytes: float
    images_per_second: float
    frozen: Measured
    linear: Measured | None = None

    @property
    def best(self) -> Measured:
        """Return the measurement that candidates are compared by: with a head, where one was trained."""
        return self.frozen if self.linear is None else self.linear


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Candidates on the same validation classes.

    Attributes:
        data: What was measured on, as the command takes it.
        images: How many validation images there are.
        classes: Of how many classes.
        epochs: Of the linear head; 0 for none.
        candidates: Those that could be measured, best first.
        failures: Name → why it could not.
    """

    data: str
    images: int
    classes: int
    epochs: int
    candidates: tuple[Candidate, ...]
    failures: Mapping[str, str]

    def rows(self) -> list[dict[str, object]]:
        """Return one mapping of column to text a candidate."""
        found = []
        for one in self.candidates:
            row: dict[str, object] = {"backbone": one.name, "px": _size_text(one.image_size)}
            for label, measured in (("", one.frozen), ("linear ", one.linear)):
                if measured is not None:
                    row[f"{label}R@1"] = _percent(measured.recall, measured.recall_interval)
                    row[f"{label}MAP@R"] = _percent(measured.map_at_r, measured.map_interval)
            row |= {"images/s": f"{one.images_per_second:,.1f}", "M params": f"{one.parameters / 1e6:.2f}"}
            found.append({**row, "int8 MB": f"{one.int8_megabytes:.1f}"})
        return found

    def cheapest(self) -> Candidate | None:
        """Return the fastest candidate whose R@1 lies within the interval of the best, or None without candidates."""
        if not self.candidates:
            return None
        low = self.candidates[0].best.recall_interval[0]
        near = [one for one in self.candidates if one.best.recall >= low]
        return max(near, key=lambda one: one.images_per_second)

    def train_line(self, candidate: Candidate) -> str:
        """Return the command that trains on a candidate."""
        height, width = candidate.image_size
        words = ["tf-detreg", "train", self.data, "--backbone", candidate.name]
        words += ["--weights", candidate.weights] if candidate.weights else []
        return shlex.join(words + (["--image-size", str(height)] if height == width else []))

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return {**dataclasses.asdict(self), "failures": dict(self.failures)}

    def save(self, directory: str | os.PathLike[str]) -> tuple[pathlib.Path, pathlib.Path]:
        """Write `backbones.json` and `backbones.png`, recall against cost, and return their paths."""
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        numbers = write_json(directory / "backbones.json", self.to_dict())
        picture = directory / "backbones.png"
        with replacing(picture) as temporary:
            self.plot(temporary)
        return numbers, picture

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw R@1 with its interval against milliseconds an image; the area of a point is the number of parameters."""
        with extras.needed("The plot"):
            from matplotlib.figure import Figure
            from matplotlib.ticker import LogLocator

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        beside: dict[str, Any] = {"ha": "center", "textcoords": "offset points"}
        for one in self.candidates:
            low, high = one.best.recall_interval
            cost = 1e3 / one.images_per_second
            axes.plot((cost, cost), (100 * low, 100 * high), color="#9ecae1", lw=2, zorder=1)
            axes.scatter(cost, 100 * one.best.recall, 20 + 2 * one.parameters / 1e6, color="#08519c", zorder=2)
            label = f"{pathlib.PurePath(one.name).name} {_size_text(one.image_size)}"
            axes.annotate(label, (cost, 100 * high), (0, 5), fontsize=8, **beside)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.25, y=0.15)
        axes.set_ylim(top=min(axes.get_ylim()[1], 104))
        axes.set_xlabel("milliseconds an image on this machine (area: parameters)")
        head = f"linear head, {self.epochs} epochs" if self.epochs else "frozen features"
        axes.set_ylabel(f"R@1 on {self.classes} validation classes, % ({head})")
        axes.grid(alpha=0.3)
        figure.savefig(os.fspath(path), format="png", dpi=150)


def compare(
    data: str,
    names: Sequence[str] = (),
    *,
    epochs: int = 0,
    image_size: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Comparison:
    """Measure frozen backbones on the validation classes of a data set.

    Features are kept in the cache folder (`$TF_DETREG_CACHE`), where a later `train --features` with the same backbone,
    size and seed finds them.

    Args:
        data: A folder of class folders, a `.csv` file, or another data set, as `tf-detreg train` takes it.
        names: Backbones as `backbones.build` takes them; `NAME@SIZE` at another image size. Default `DEFAULT`.
        epochs: Of a linear head on the training classes' features; 0, the default, trains none.
        image_size: Side of the images in pixels, where a name says none. Default None: that of the preset, else
            the data set's.
        seed: Of the deal of classes, and of the head. Default 0.
        progress: False shows none. Default None, a bar in a terminal and lines in a log.

    Returns:
        The candidates, best first; what could not be loaded, or does not take the size, is in `failures`.

    Raises:
        ValueError: If the data are not there, too few classes have two images, or a name is given twice.
    """
    names = tuple(names) or DEFAULT
    if len(set(names)) < len(names):
        raise ValueError(f"`names` must differ; received {', '.join(names)}.")
    checks.integer("epochs", epochs)
    found: list[Candidate] = []
    failures: dict[str, str] = {}
    images, classes = 0, 0
    for name in names:
        config = candidate_config(data, name, image_size, seed)
        try:
            size = config.image_size or assembly.preset_size(config)
            config = config.replace(image_size=size) if isinstance(size, int) else config
        except (ValueError, OSError, ImportError) as error:
            failures[name] = str(error)
            continue
        splits: Any = assembly.load_splits(config)  # a fault of the data is none of the candidate
        _check(splits)
        images, classes = len(splits.validation), splits.validation.num_classes
        keras.utils.set_random_seed(seed)  # a run draws the same random weights, where they are random
        try:
            backbone = assembly.build_backbone(config, height_width(splits.train.image_size))
        except (ValueError, OSError, ImportError) as error:
            failures[name] = str(error)
            continue
        found.append(_measure(config, backbone, splits, epochs, progress))
    found.sort(key=lambda one: -one.best.recall)
    return Comparison(data, images, classes, epochs, tuple(found), failures)


def candidate_config(data: str, name: str, image_size: int | None = None, seed: int = 0) -> RunConfig:
    """Return the run that a candidate stands for.

    Args:
        data: As `tf-detreg train` takes it.
        name: A backbone, or `NAME@SIZE`.
        image_size: Side of the images where the name says none. Default None.
        seed: Default 0.

    Example:
    >>> config = candidate_config("photos", "ResNet50@96")
    >>> config.backbone, config.image_size
    ({'name': 'ResNet50', 'weights': 'imagenet', 'freeze_batch_norm': True}, 96)
    """
    from tf_detreg import recipes
    from tf_detreg.backbones.preset_files import is_preset

    head, _, side = name.rpartition("@")
    if head and side.isdigit():
        name, image_size = head, checks.integer("image_size", int(side), 1)
    part: dict[str, Any] = {"name": name}
    if name != "small_cnn" and not is_preset(name):
        part["weights"] = "imagenet"
    if name != "small_cnn":
        part["freeze_batch_norm"] = True  # as `train --backbone` does, whose features are the same then
    config = RunConfig.from_dict({"backbone": part, "image_size": image_size, "seed": seed, "features": True})
    return recipes.with_data(config, data)


def _check(splits: Any) -> None:
    counts = np.bincount(splits.validation.labels) if len(splits.validation) else np.zeros(0, int)
    if (counts >= 2).sum() < 2:
        raise ValueError(
            "At least 2 validation classes need 2 images each to compare backbones on; a fifth of the classes "
            f"is held back for it, {splits.validation.num_classes} here. Give more classes, of a folder "
            "8 at least, or more images."
        )


def _measure(config: RunConfig, backbone: keras.Model, splits: Any, epochs: int, progress: bool | None) -> Candidate:
    from tf_detreg.datasets import cache_features

    name = config.backbone["name"]
    speed = images_per_second(backbone)
    validation: Any = cache_features(backbone, splits.validation, max_unreadable=1.0, progress=progress)
    frozen = _evaluate(np.asarray(validation.features[validation.rows]), validation.labels)
    linear = None
    if epochs:
        train = cache_features(backbone, splits.train, progress=progress)
        linear = _linear(config, splits._replace(train=train, validation=validation), epochs, name, progress)
    parameters = backbone.count_params()
    return Candidate(
        name,
        config.backbone.get("weights"),
        height_width(splits.train.image_size),
        int(backbone.output_shape[-1]),
        int(parameters),
        int8_bytes(backbone) / 1e6,
        speed,
        frozen,
        linear,
    )


def _evaluate(embeddings: np.ndarray, labels: np.ndarray) -> Measured:
    report = retrieval.evaluate(embeddings, labels, k=1, progress=False)
    return Measured(
        report.metrics["recall@1"],
        report.intervals["recall@1"],
        report.metrics["map@r"],
        report.intervals["map@r"],
    )


def _linear(config: RunConfig, splits: Any, epochs: int, name: str, progress: bool | None) -> Measured:
    """Train a linear head on features and measure it."""
    classes = min(16, splits.train.num_classes)
    head = {"name": "Linear", "dim": min(_HEAD_DIM, splits.train.dim)}
    config = config.replace(
        head=head,
        loss={"name": "ProxyAnchor"},
        epochs=epochs,
        classes=classes,
        optimizer={"head_rate": _HEAD_RATE, "proxy_factor": 10, "clipnorm": 1.0},
    )
    assembled = training.assemble(config, splits)
    with ticker(f"Linear head on {name}", epochs, progress) as tick:
        done = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: tick(1))
        assembled.fit([done], verbose=0)
    embedded = training.embed(assembled.embedder, splits.validation, progress=False)
    return _evaluate(embedded.embeddings, embedded.labels)


def images_per_second(model: keras.Model, batch: int = 16, seconds: float = 1.0) -> float:
    """Return how many images a second a model takes on this machine.

    Args:
        model: From images (B, H, W, 3) to features.
        batch: Images at a time. Default 16.
        seconds: How long it is measured, at least three batches. Default 1.0.

    Returns:
        From the median time of a batch; the first, which traces the model, is not counted.
    """
    from tf_detreg.inference import traced

    run = traced(model)
    images = tf.zeros((batch, *model.input_shape[1:]))
    run(images)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 100):
        began = time.perf_counter()
        np.asarray(run(images))
        times.append(time.perf_counter() - began)
    return batch / statistics.median(times)


def int8_bytes(model: keras.Model) -> int:
    """Return the bytes of a model's weights with kernels of 8 bits and all else in float32.

    Example:
    >>> int8_bytes(keras.Sequential([keras.Input((10,)), keras.layers.Dense(5)]))
    70
    """
    return sum(math.prod(weight.shape) * (1 if len(weight.shape) > 1 else 4) for weight in model.weights)


def _percent(value: float, interval: Interval) -> str:
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _size_text(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}×{size[1]}"

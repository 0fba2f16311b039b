"""Everything at once: a SavedModel and the phone files, verified before any of them is published."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.export import publishing
from tf_detreg.export.cards import model_card
from tf_detreg.export.formats import WRITERS
from tf_detreg.export.inference import image_size_of, inference_model, pixels
from tf_detreg.export.savedmodel import saved_model
from tf_detreg.export.verification import Limits, Verification, verify
from tf_detreg.progress import ticker

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


CALIBRATION_IMAGES = 200
SAVED_MODEL = "saved_model"
EXACT = (SAVED_MODEL, "float32")
DEFAULT = (*EXACT, "float16", "dynamic", "int8")
LITE, CARD = "lite", "README.md"


@dataclasses.dataclass(frozen=True)
class Release:
    """What was published.

    Args:
        paths: By format: the SavedModel's version folder and the `.tflite` files in it.
        verification: What the checks found; None when they were not asked for.
        card: The model card's path.
    """

    paths: dict[str, pathlib.Path]
    verification: Verification | None
    card: pathlib.Path


def release(
    embedder: keras.Model,
    directory: str | os.PathLike[str],
    images: "ImageSet | ArrayLike | None" = None,
    labels: np.ndarray | None = None,
    *,
    formats: Sequence[str] | None = None,
    calibration: "ImageSet | ArrayLike | None" = None,
    version: int | None = None,
    check: bool = True,
    limits: dict[str, Limits] | None = None,
    class_names: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Release:
    """Export in several formats, run each in a clean process, and publish what is within its limits.

    All of it lies in one folder, `directory/<version>/`, which appears in one step, or, where a format that must be
    there falls below its limits, not at all: the SavedModel itself, `lite/<folder's name>-<format>.tflite`, the card as
    `README.md`, and `manifest.json` with a checksum of each file. Without a SavedModel the folder is called
    `lite-<version>`, so that TensorFlow Serving passes it over. No number is given twice.

    Args:
        embedder: The plain inference model, or a `MetricModel`.
        directory: The model's folder.
        images: Real images `(N, H, W, 3)`, 0..255, or an `ImageSet`, best of the test classes: what the artifacts are
            compared on. Default: none, with `check=False` and without `int8`.
        labels: Their classes, for the change of R@1; an `ImageSet` brings its own.
        formats: Any of `saved_model`, `float32`, `float16`, `dynamic`, `int8`; all that are named must be within
            their limits. Default: all five, of which `float16`, `dynamic` and `int8` are left out where they lose too
            much of this model; `verification` and the card say so.
        calibration: Images for `int8` (an array or an `ImageSet`), best of the training classes; 200 of them, spread
            over the set, are used. Default: `images`.
        version: Its number. Default: the next free one.
        check: Whether to verify before publishing. Default True.
        limits: By precision, what to allow. Default: `export.LIMITS`.
        class_names: Stored in each artifact.
        card: Arguments of `export.model_card`: `data`, `recipe`, `evaluation`, `smoothness`, `license`, `name`.
        progress: Whether to show progress. Default None: bars in a terminal, lines in a log.

    Returns:
        A `Release`.

    Raises:
        ValueError: If a format is unknown, one that must be there falls below its limits, or `version` is there
            already.
        OSError: If the disk is full or not writable. What was published before stays as it was.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.UnitNormalization()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (6, 4, 4, 3))
        >>> done = release(model, tempfile.mkdtemp(), images, formats=["float32"])
        >>> done.verification.passed, sorted(done.paths)
        (True, ['float32'])
    """
    required, formats = EXACT if formats is None else formats, DEFAULT if formats is None else formats
    known = (SAVED_MODEL, *WRITERS)
    unknown = [name for name in formats if name not in known]
    if unknown or not formats:
        raise checks.invalid("formats", f"be some of {', '.join(map(repr, known))}", checks.shown(unknown or formats))
    embedder, directory = inference_model(embedder), pathlib.Path(directory)
    publishing.free_version(directory, version)
    if images is None and (check or ("int8" in formats and calibration is None)):
        raise ValueError("`images` are needed to verify the files, and to calibrate int8; received None.")
    chosen = None
    if "int8" in formats:
        chosen = _spread(images if calibration is None else calibration, image_size_of(embedder))
    title = directory.resolve().name
    with publishing.staging(directory) as folder:
        with ticker("Writing the files", len(formats), progress) as tick:
            content = _content(embedder, folder, title, formats, class_names)
            staged = {SAVED_MODEL: content} if SAVED_MODEL in formats else {}
            tick(len(staged))
            for name in [name for name in formats if name != SAVED_MODEL]:
                stem = content / LITE / f"{title}-{name}"
                staged[name] = WRITERS[name](embedder, stem, chosen, class_names)
                tick(1)
        verification = None
        if check and images is not None:
            publishing.seal(content)
            verification = _named(verify(embedder, staged.values(), images, labels, limits=limits, progress=progress))
        for name in staged.keys() - _within_limits(staged, verification, required).keys():
            staged.pop(name).unlink()
        text = model_card(embedder, verification=verification, **(card or {}))
        (content / CARD).write_text(text, encoding="utf-8")
        publishing.seal(content)
        done = publishing.take_number(content, directory, version)
    paths = {name: done / path.relative_to(content) for name, path in staged.items()}
    return Release(paths, verification, done / CARD)


def _content(
    embedder: keras.Model, folder: pathlib.Path, title: str, formats: Sequence[str], class_names: Sequence[str] | None
) -> pathlib.Path:
    """Return the folder that becomes the version, with the SavedModel in it if that is wanted."""
    content = folder / "content"
    if SAVED_MODEL in formats:
        # Its warm-up requests name the model by the folder.
        saved_model(embedder, folder / title, 1, class_names=class_names).rename(content)
    else:
        content.mkdir()
    return content


def _named(verification: Verification) -> Verification:
    """Return the checks under names that do not depend on where the files lay."""
    named = [
        dataclasses.replace(check, name="SavedModel") if check.engine == "tensorflow" else check
        for check in verification.checks
    ]
    return dataclasses.replace(verification, checks=tuple(named))


def _within_limits(
    staged: dict[str, pathlib.Path], verification: Verification | None, required: Sequence[str]
) -> dict[str, pathlib.Path]:
    """Return what may be published.

    Raises:
        ValueError: If a required format is not among it.
    """
    if verification is None:
        return staged
    good = {name: staged[name] for name, check in zip(staged, verification.checks, strict=True) if check.passed}
    if not good.keys() >= set(required):
        verification.require()
    return good


def _spread(images: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Return 200 images from all over a set."""
    chosen = np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images))).astype(int)
    images = images.subset(chosen) if hasattr(images, "subset") else np.asarray(images)[chosen]
    return pixels(images, None, image_size, CALIBRATION_IMAGES)[0]

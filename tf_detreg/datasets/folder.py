"""A folder of class folders: what most people have."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from tf_detreg import deprecated
from tf_detreg.datasets.image_set import ImageSet, Size, Splits, hold_out, split_by_class
from tf_detreg.datasets.names import normal_names, report_cases
from tf_detreg.datasets.paths import PathList
from tf_detreg.datasets.repeats import report_repeats
from tf_detreg.datasets.scan import passed_over, sift
from tf_detreg.files import readable
from tf_detreg.images import is_image_name

logger = logging.getLogger(__name__)

_PARTS = {"train": ("train", "training"), "validation": ("validation", "valid", "val"), "test": ("test", "testing")}


@deprecated.renamed_arguments(path="directory")
def folder(
    directory: str | os.PathLike[str],
    image_size: Size = 224,
    validation: float = 0.2,
    test: float = 0.3,
    seed: int = 0,
) -> Splits:
    """Load `directory/CLASS/…/picture.jpg`: one folder a class, at any depth below it.

    The classes are dealt into train, validation and test. Where `directory` has the folders `train` and `test` (and
    perhaps `validation`, or `val`), each with class folders in it, these are the splits instead; without a folder for
    validation a part of the train classes is taken for it.

    Folders whose names differ in white space or Unicode form only are one class. The log names classes that differ in
    upper and lower case only, and pictures that are there again: as links or copies, under two classes, in two parts.
    Files that are no images are left out, counted, named in the log and listed in `skipped` with the reason. A class of
    one image stays and is reported: as a query it has nothing to find.

    Args:
        directory: The folder.
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        validation: Share of the classes for validation. Default 0.2.
        test: Share of the classes for testing. Default 0.3.
        seed: Of the deal. Default 0.

    Returns:
        `Splits` of images on disk.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no pictures, or fewer classes than can be split.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder. Give a folder that holds one folder of pictures a class.")
    name = os.path.basename(os.path.abspath(root))  # that of "." is empty
    parts = _given_parts(root)
    splits = _split(root, parts, name, image_size, validation, test, seed)
    report_cases(splits, str(root))
    report_repeats(splits, str(root))
    return splits


def _split(
    root: pathlib.Path,
    parts: dict[str, pathlib.Path] | None,
    name: str,
    image_size: Size,
    validation: float,
    test: float,
    seed: int,
) -> Splits:
    if parts is None:
        return split_by_class(_load(root, image_size, name), validation, test, seed)
    loaded = {part: _load(where, image_size, f"{name}/{part}") for part, where in parts.items()}
    if "validation" not in loaded:
        share = validation / (1 - test) if validation + test < 1 else validation
        loaded["train"], loaded["validation"] = hold_out(loaded["train"], min(share, 0.5), seed)
    return Splits(**loaded)


def _given_parts(root: pathlib.Path) -> dict[str, pathlib.Path] | None:
    folders = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    found = {part: folders[name] for part, names in _PARTS.items() for name in names if name in folders}
    only_parts = {entry.name.lower() for entry in found.values()} == {n for n in folders if not n.startswith(".")}
    return found if only_parts and {"train", "test"} <= found.keys() else None


def _load(root: pathlib.Path, image_size: Size, name: str) -> ImageSet:
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    files = [(label, file) for label, kind in enumerate(classes) for file in _files(root, kind)]
    names = [(label, file) for label, file in files if is_image_name(os.path.basename(file))]
    if not names:
        loose = sum(is_image_name(entry.name) for entry in os.scandir(root))
        hint = f" ({loose} pictures lie beside, in no class folder)" if loose else ""
        raise ValueError(f"{root} holds no pictures in class folders{hint}. Expected {root}/CLASS/picture.jpg.")
    bad = sift((os.path.join(root, file) for _, file in names), str(root))
    bad |= passed_over((os.path.join(root, file) for _, file in files), str(root))
    kept = [(label, file) for label, file in names if os.path.join(root, file) not in bad]
    return _assemble(root, classes, kept, bad, image_size, name)


def _assemble(
    root: pathlib.Path,
    classes: Sequence[str],
    kept: list[tuple[int, str]],
    bad: dict[str, str],
    image_size: Size,
    name: str,
) -> ImageSet:
    # Two folders may be one class: macOS writes the same name in another Unicode form.
    kinds = normal_names(map(readable, classes), str(root))
    classes = sorted(set(kinds))
    number_of = {kind: number for number, kind in enumerate(classes)}
    folders = np.array([number_of[kind] for kind in kinds])
    labels = folders[[label for label, _ in kept]]
    counts = np.bincount(labels, minlength=len(classes))
    report_counts(classes, counts, str(root))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        raise ValueError(
            f"{root} has {len(present)} class{'es' if len(present) != 1 else ''} with pictures; metric learning needs "
            "at least two folders of pictures, one a class."
        )
    number = np.cumsum(counts > 0) - 1
    return ImageSet(
        labels=number[labels],
        class_names=[classes[i] for i in present],
        paths=PathList((file for _, file in kept), root),
        name=name,
        image_size=image_size,
        skipped=tuple(bad.items()),
    )


def report_counts(classes: Sequence[str], counts: np.ndarray, what: str) -> None:
    """Log the classes that have no picture, or a single one."""
    for number, remark in ((0, "have no readable picture and are left out"), (1, "have a single picture (kept)")):
        found = [classes[i] for i in np.flatnonzero(counts == number).tolist()]
        if found:
            shown = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
            logger.warning("%s: %d of %d classes %s: %s", what, len(found), len(classes), remark, shown)


def _files(root: pathlib.Path, kind: str) -> Iterator[str]:
    """Yield files below a class folder that are not hidden, relative to `root`, in a fixed order."""
    for where, folders, files in os.walk(root / kind):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                yield os.path.relpath(os.path.join(where, file), root)

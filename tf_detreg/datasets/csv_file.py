"""A table of files: path, label and perhaps which split and which group."""

from __future__ import annotations

import csv as csv_module
import os
import pathlib
from typing import Any

import numpy as np

from tf_detreg import deprecated
from tf_detreg.datasets.folder import report_counts
from tf_detreg.datasets.image_set import ImageSet, Size, Splits, split_by_class
from tf_detreg.datasets.names import normal_names, report_cases
from tf_detreg.datasets.paths import PathList
from tf_detreg.datasets.repeats import report_repeats
from tf_detreg.datasets.scan import sift
from tf_detreg.files import existing
from tf_detreg.images.reference import problem

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
_SPLITS |= {"test": "test", "testing": "test"}
_MISSING = "missing"


@deprecated.renamed_arguments(root="directory")
def csv(
    path: str | os.PathLike[str],
    image_size: Size = 224,
    directory: str | os.PathLike[str] | None = None,
    validation: float = 0.2,
    test: float = 0.3,
    seed: int = 0,
    max_missing: float = 0.0,
) -> Splits:
    """Load a CSV file with a header; the columns `path` and `label` are needed, `split` and `group` are used if there.

    Files that are missing or no images are left out, counted, named in the log and listed in `skipped` with the reason.

    Args:
        path: The CSV file, UTF-8.
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        directory: Folder that relative paths start from; the CSV file's own by default.
        validation: Share of the classes for validation, where no `split` column says it. Default 0.2.
        test: Share of the classes for testing, likewise. Default 0.3.
        seed: Of the deal. Default 0.
        max_missing: Share of the listed files that may be missing. Default 0.0.

    Labels that differ in white space or Unicode form only are one class; the log names those that differ in case only,
    and files that are listed again: under another spelling, as a link or copy, under two labels, in two splits.

    Returns:
        `Splits` of images on disk. Labels are classes; with a `split` column, each split numbers its own.

    Raises:
        FileNotFoundError: If the CSV file, or more than `max_missing` of the files that it lists, are missing.
        ValueError: For a missing column, an unknown split, no readable image, or too few classes.
    """
    path = existing(path, "path", "Give a CSV file with the columns `path` and `label`.")
    rows = _rows(path)
    base = pathlib.Path(directory) if directory is not None else path.parent
    bad = sift((os.path.join(base, row["path"]) for row in rows), str(path), _problem)
    missing = [file for file, reason in bad.items() if reason == _MISSING]
    if len(missing) > max_missing * len(rows):
        first = "\n  ".join(missing[:5])
        raise FileNotFoundError(
            f"{path} lists {len(missing)} files of {len(rows)} not there, more than max_missing={max_missing:.1%}. "
            f"Relative paths start from {base}; set `directory` if that is wrong. The first missing:\n  {first}"
        )
    rows = [row for row in rows if os.path.join(base, row["path"]) not in bad]
    if not rows:
        raise ValueError(f"{path} lists no readable images: all {len(bad)} files are left out, see the log.")
    for column in ("label", "group"):
        if column in rows[0]:
            for row, name in zip(rows, normal_names((row[column] for row in rows), f"{path}, {column}"), strict=True):
                row[column] = name
    if "split" in rows[0]:
        splits = _given_splits(rows, base, image_size, path, bad)
    else:
        splits = split_by_class(_image_set(rows, base, image_size, path, path.stem, bad), validation, test, seed)
    report_cases(splits, str(path))
    report_repeats(splits, str(path))
    return splits


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv_module.DictReader(file)
            for column in ("path", "label"):
                if column not in (reader.fieldnames or ()):
                    raise ValueError(
                        f"{path} needs a column {column!r} in its header, and commas between columns; "
                        f"found {reader.fieldnames}."
                    )
            rows = [_checked(row, f"{path}, line {reader.line_num}") for row in reader]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}). Save it as UTF-8."
        ) from error
    except csv_module.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise ValueError(f"{path} lists no images.")
    return rows


def _checked(row: dict[str, Any], where: str) -> dict[str, str]:
    if None in row or None in row.values() or not row["path"].strip() or not row["label"].strip():
        raise ValueError(f"{where}: path or label is empty, or the number of columns is wrong: {str(row)[:200]}.")
    if "\0" in row["path"]:
        raise ValueError(f"{where}: the path {row['path']!r} holds a zero byte.")
    return row


def _problem(path: str) -> str | None:
    return problem(path) if os.path.exists(path) else _MISSING


def _given_splits(
    rows: list[dict[str, str]], base: pathlib.Path, image_size: Size, path: pathlib.Path, bad: dict[str, str]
) -> Splits:
    parts: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        part = _SPLITS.get(row["split"].strip().lower())
        if part is None:
            raise ValueError(f"{path}: the split {row['split']!r} of {row['path']} is none of train, validation, test.")
        parts[part].append(row)
    if not parts["train"]:
        raise ValueError(f"{path}: no row has the split 'train'.")
    return Splits(
        *(_image_set(part, base, image_size, path, f"{path.stem}/{name}", bad) for name, part in parts.items())
    )


def _image_set(
    rows: list[dict[str, str]], base: pathlib.Path, image_size: Size, path: pathlib.Path, name: str, bad: dict[str, str]
) -> ImageSet:
    classes, labels = np.unique([row["label"] for row in rows], return_inverse=True)
    classes = classes.tolist()
    if len(classes) == 1:
        raise ValueError(f"{path} ({name}) has one class, {classes[0]!r}; metric learning needs at least two.")
    report_counts(classes, np.bincount(labels, minlength=len(classes)), name)
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1] if rows and "group" in rows[0] else None
    return ImageSet(
        labels=labels.astype(np.int32),
        class_names=classes,
        paths=PathList((row["path"] for row in rows), base),
        groups=groups,
        name=name,
        image_size=image_size,
        skipped=tuple(bad.items()),
    )

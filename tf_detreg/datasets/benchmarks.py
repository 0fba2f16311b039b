"""What the loaders of public benchmarks share: where to get them, and whether they are complete."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_detreg.datasets.image_set import ImageSet, Size
from tf_detreg.datasets.paths import PathList


@dataclass(frozen=True)
class Benchmark:
    """A public data set: its name, its download page and the files its folder must hold."""

    name: str
    page: str
    files: tuple[str, ...]

    def open(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Return the folder as a path, when it holds what it must."""
        root = pathlib.Path(path)
        missing = [file for file in self.files if not (root / file).exists()]
        if missing:
            raise FileNotFoundError(
                f"{root} is not a whole {self.name}: {', '.join(missing)} not found. Download it from {self.page}, "
                "unpack it and give the folder that holds " + ", ".join(self.files) + "."
            )
        return root

    def check(self, what: str, found: int, expected: int | None) -> None:
        """Raise unless the count is the official one."""
        if expected is not None and found != expected:
            raise ValueError(
                f"{self.name}: {found:,} {what}, but the official release has {expected:,}. The download or the "
                f"unpacking was cut short; get it again from {self.page} (`check=False` loads what is there)."
            )

    def image_set(
        self,
        root: pathlib.Path,
        files: Sequence[str],
        keys: Sequence[Any],
        names: Callable[[Any], str],
        image_size: Size,
        part: str,
        groups: np.ndarray | None = None,
    ) -> ImageSet:
        """Return a set of listed files, with `keys` (any sortable class ids) renumbered and named by `names(key)`."""
        missing = [file for file in files if not (root / file).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.name}: {len(missing):,} of the {len(files):,} listed images are missing below {root}, the "
                f"first is {missing[0]}. Get them from {self.page}."
            )
        classes, labels = np.unique(np.asarray(keys), return_inverse=True)
        try:
            class_names = [names(key) for key in classes.tolist()]
        except LookupError as error:
            raise ValueError(
                f"{self.name}: images are listed under classes up to {classes[-1]}, not all of which the list of "
                f"classes has. Get both again from {self.page}."
            ) from error
        return ImageSet(
            labels=labels.astype(np.int32),
            class_names=class_names,
            paths=PathList(files, root),
            groups=groups,
            name=f"{self.name}/{part}",
            image_size=image_size,
        )


def table(path: pathlib.Path, columns: int, skip: int = 0) -> list[list[str]]:
    """Return the rows of a text file of `columns` columns parted by blanks, after `skip` header lines."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if number <= skip or not line.strip():
                continue
            row = line.split(maxsplit=columns - 1)
            if len(row) != columns:
                raise ValueError(f"{path}, line {number}: expected {columns} columns, found {line.strip()!r}.")
            rows.append([cell.strip() for cell in row])
    return rows

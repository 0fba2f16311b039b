"""File names by the million: one block of bytes and one offset a name."""

from __future__ import annotations

import array
import os
from collections.abc import Iterable, Sequence

import numpy as np


class PathList(Sequence):
    """An immutable list of file names under one root.

    Ten million `str` objects need more than a gigabyte; here a name costs its bytes plus eight.

    Args:
        names: file names, relative to `root` (or absolute, when `root` is empty).
        root: folder that stands before each name.

    Example:
    >>> from tf_detreg.datasets.paths import PathList
    >>> list(PathList(["cat/1.jpg", "dog/2.jpg"], root="photos"))
    ['photos/cat/1.jpg', 'photos/dog/2.jpg']
    """

    def __init__(self, names: Iterable[str], root: str | os.PathLike = ""):
        self.root = os.fspath(root)
        block, ends = bytearray(), array.array("q", [0])
        for name in names:
            block += os.fsencode(name)
            ends.append(len(block))
        self._block, self._ends = block, np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"path {index} of {len(self)}")
        index %= len(self)
        name = os.fsdecode(bytes(self._block[self._ends[index] : self._ends[index + 1]]))
        return os.path.join(self.root, name) if self.root else name

    def take(self, indices) -> PathList:
        """The names at `indices`, in that order."""
        indices = np.asarray(indices, np.int64)
        taken = PathList((), self.root)
        sizes = self._ends[indices + 1] - self._ends[indices]
        starts = self._ends[indices]
        taken._block = bytearray().join(
            self._block[start : start + size] for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
        )
        taken._ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return taken

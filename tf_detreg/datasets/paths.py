"""File names by the million: one block of bytes and one offset a name."""

from __future__ import annotations

import array
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_GROUP = 64  # names to one noted position
_PIECE = 1 << 16  # names that are copied at a time


class PathList(Sequence[str]):
    """An immutable list of file names under one root.

    Ten million `str` objects need more than a gigabyte; here a name costs its bytes plus two.

    Args:
        names: File names, relative to `root` (or absolute, when `root` is empty).
        root: Folder that stands before each name.

    Example:
    >>> from tf_detreg.datasets.paths import PathList
    >>> list(PathList(["cat/1.jpg", "dog/2.jpg"], root="photos"))
    ['photos/cat/1.jpg', 'photos/dog/2.jpg']
    """

    def __init__(self, names: Iterable[str], root: str | os.PathLike[str] = "") -> None:
        self.root = os.fspath(root)
        self._block, self._sizes, self._groups = bytearray(), array.array("H"), array.array("q")
        for name in names:
            self._append(os.fsencode(name))

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"path {index} of {len(self)}")
        index %= len(self)
        start = self._groups[index // _GROUP] + sum(self._sizes[index - index % _GROUP : index])
        name = os.fsdecode(bytes(self._block[start : start + self._sizes[index]]))
        return os.path.join(self.root, name) if self.root else name

    def take(self, indices: ArrayLike) -> PathList:
        """Return the names at `indices`, in that order."""
        indices, taken = np.asarray(indices, np.int64), PathList((), self.root)
        block, sizes = np.frombuffer(self._block, np.uint8), np.frombuffer(self._sizes, np.uint16)
        for begin in range(0, len(indices), _PIECE):
            piece = indices[begin : begin + _PIECE]
            starts, lengths = self._starts(piece), sizes[piece].astype(np.int64)
            ends = np.cumsum(lengths)
            new_starts = len(taken._block) + ends - lengths
            # Byte b of the new names is byte b + (old start − new start) of the old block.
            source = np.arange(len(taken._block), len(taken._block) + ends[-1])
            source += np.repeat(starts - new_starts, lengths)
            taken._groups.frombytes(new_starts[-begin % _GROUP :: _GROUP].tobytes())
            taken._sizes.frombytes(sizes[piece].tobytes())
            taken._block += block[source].data
        return taken

    def _append(self, name: bytes) -> None:
        if len(self._sizes) % _GROUP == 0:
            self._groups.append(len(self._block))
        self._sizes.append(len(name))
        self._block += name

    def _starts(self, indices: np.ndarray) -> np.ndarray:
        """Return where the names at `indices` begin in the block."""
        sizes, groups = np.frombuffer(self._sizes, np.uint16), np.frombuffer(self._groups, np.int64)
        within = indices % _GROUP
        starts = groups[indices // _GROUP]
        for step in range(1, _GROUP):
            behind = within >= step
            starts[behind] += sizes[indices[behind] - step]
        result: np.ndarray = starts
        return result

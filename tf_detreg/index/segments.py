"""The vectors of an index: segments, each a file of unit rows that is written once and then only read.

Every vector has a row number: segments follow each other, and a new one begins where the last ended. Removing an item
marks its row; the row itself goes when the index is compacted.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tf_detreg import manifests
from tf_detreg.files import sync_entry

FOLDER = "segments"
BLOCK = 65_536  # rows that are looked at together


@dataclasses.dataclass(frozen=True)
class Segment:
    """Some vectors of an index.

    Args:
        number: Its key in the store.
        start: Row number of its first vector.
        count: How many it has.
        file: Its file's name; empty where it is held in memory.
        sha256: Of the file; empty in memory.
        removed: (count,) True where an item is gone; None where all are there.
        vectors: (count, dim) float32 unit rows; mapped from the file.
    """

    number: int
    start: int
    count: int
    file: str
    sha256: str
    removed: np.ndarray | None
    vectors: np.ndarray

    @functools.cached_property
    def live(self) -> int:
        """Return how many items are still there."""
        return self.count - (0 if self.removed is None else int(np.count_nonzero(self.removed)))

    @functools.cached_property
    def kept(self) -> np.ndarray:
        """Return (count,) True where an item is still there."""
        return np.ones(self.count, bool) if self.removed is None else ~self.removed

    @functools.cached_property
    def gaps(self) -> np.ndarray:
        """Return (count,) how many rows up to each one were removed."""
        removed = np.zeros(self.count, bool) if self.removed is None else self.removed
        return np.cumsum(removed, dtype=np.int32 if self.count < 2**31 else np.int64)

    @property
    def end(self) -> int:
        """Return the row number behind its last vector."""
        return self.start + self.count


def write(
    directory: pathlib.Path, number: int, blocks: Iterable[np.ndarray], count: int, dimension: int
) -> tuple[str, str]:
    """Write vectors to a new file and put it on the disk.

    Args:
        directory: Of the index.
        number: A number that no segment had before.
        blocks: The vectors, in pieces (n, dim) float32.
        count: How many there are in all.
        dimension: Of the vectors.

    Returns:
        The file's name and its SHA-256.

    Raises:
        OSError: If it cannot be written.
    """
    name = f"{number:08d}.npy"
    folder = directory / FOLDER
    temporary = folder / f"{name}.part"
    digest = hashlib.sha256()
    with temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        digest.update(temporary.read_bytes())
        for block in blocks:
            data = np.ascontiguousarray(block, "<f4").tobytes()
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / name)
    sync_entry(folder)
    return name, digest.hexdigest()


def open_file(directory: pathlib.Path, name: str, count: int, dimension: int) -> np.ndarray:
    """Map a segment's file into memory.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not what the store says.
    """
    path = directory / FOLDER / name
    try:
        vectors: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise damaged(directory, f"{FOLDER}/{name} cannot be read: {error}") from error
    if vectors.shape != (count, dimension) or vectors.dtype != np.float32:
        raise damaged(directory, f"{FOLDER}/{name} holds {vectors.dtype} {vectors.shape}, not {(count, dimension)}")
    return vectors


def damaged(directory: pathlib.Path | None, what: str) -> ValueError:
    """Return the error for an index that is not as it was written."""
    return ValueError(f"The index {str(directory)!r} is damaged ({what}). Build it again from its images.")


def check(directory: pathlib.Path, segment: Segment) -> None:
    """Compare a segment's file with its checksum.

    Raises:
        ValueError: If they differ.
    """
    if manifests.sha256(directory / FOLDER / segment.file) != segment.sha256:
        raise damaged(directory, f"{FOLDER}/{segment.file} does not match its checksum")


def drop_unknown(directory: pathlib.Path, known: set[str]) -> None:
    """Remove files of writers that were killed; only for who holds the lock of the only writer."""
    for file in (directory / FOLDER).iterdir():
        if file.name not in known:
            drop(directory, file.name)


def drop(directory: pathlib.Path, name: str) -> None:
    """Remove a segment's file. Where the system keeps a file that is still mapped, a later change tries again."""
    with contextlib.suppress(OSError):
        (directory / FOLDER / name).unlink()


def pack(removed: np.ndarray | None) -> bytes | None:
    """Return a mask in as few bytes as it takes; None where no row is marked."""
    return None if removed is None or not removed.any() else zlib.compress(np.packbits(removed).tobytes(), 1)


def unpack(packed: bytes | None, count: int) -> np.ndarray | None:
    """Return the mask that `pack` packed."""
    if packed is None:
        return None
    return np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=count).astype(bool)


def take(parts: Sequence[Segment], rows: np.ndarray) -> np.ndarray:
    """Return the vectors of ascending row numbers, as an array in memory."""
    taken = np.empty((len(rows), parts[0].vectors.shape[1] if parts else 0), np.float32)
    for part in parts:
        low, high = np.searchsorted(rows, [part.start, part.end])
        taken[low:high] = part.vectors[rows[low:high] - part.start]
    return taken


def live_blocks(parts: Sequence[Segment], first: int = 0, size: int = BLOCK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield row numbers and vectors of all items from a row number on, some at a time.

    A block of which nothing was removed is a view of the file: nothing is copied.
    """
    for part in parts:
        for low in range(max(first - part.start, 0), part.count, size):
            high = min(low + size, part.count)
            rows = np.arange(part.start + low, part.start + high)
            vectors = part.vectors[low:high]
            if part.removed is not None and part.removed[low:high].any():
                kept = ~part.removed[low:high]
                rows, vectors = rows[kept], vectors[kept]
            if len(rows):
                yield rows, vectors


def positions(parts: Sequence[Segment], rows: np.ndarray) -> np.ndarray:
    """Return how many items stand before each row: its position among the ids of the index.

    Args:
        parts: The segments, in the order of their rows.
        rows: Row numbers of items, of any shape.
    """
    before = np.concatenate([[0], np.cumsum([part.live for part in parts])])
    which = np.searchsorted([part.end for part in parts], rows, side="right")
    found: np.ndarray = before[which] + rows - np.asarray([part.start for part in parts])[which]
    for number in np.unique(which):
        if parts[number].removed is not None:
            inside = which == number
            found[inside] -= parts[number].gaps[rows[inside] - parts[number].start]
    return found

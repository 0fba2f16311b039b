"""The same picture more than once: the same file under two names, or two files of the same bytes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_detreg.datasets.image_set import Splits

logger = logging.getLogger(__name__)

_PIECE = 1 << 20
_ENDS = 1 << 12
_SHOWN = 5


def report_repeats(splits: Splits, what: str) -> None:
    """Log files that stand in a data set more than once: copies find each other, or leak from training to test.

    All of them stay. A file is the same as another if its resolved path is (another spelling, a link) or its bytes are.

    Args:
        splits: Sets of images on disk.
        what: What the log calls the data set.
    """
    paths, labels, parts = [], [], []
    for name, part in zip(splits._fields, splits, strict=True):
        paths += list(part.paths or ())
        labels += [part.class_names[label] for label in part.labels]
        parts += [name] * len(part)
    groups = list(repeated(paths))
    if not groups:
        return
    torn = [len({labels[i] for i in group}) > 1 for group in groups]
    crossing = [len({parts[i] for i in group}) > 1 for group in groups]
    first = sorted(range(len(groups)), key=lambda at: not torn[at])[:_SHOWN]
    shown = [
        " = ".join(f"{paths[i]} ({labels[i]})" for i in groups[at][:_SHOWN]) + " = …" * (len(groups[at]) > _SHOWN)
        for at in first
    ]
    logger.warning(
        "%s: %d of %d files are there again, under another name, as a link or as a copy; %d under two labels, %d in "
        "two parts of the split (all kept):\n  %s%s",
        *(what, sum(len(group) - 1 for group in groups), len(paths), sum(torn), sum(crossing), "\n  ".join(shown)),
        "\n  …" if len(groups) > _SHOWN else "",
    )


def repeated(paths: Sequence[str]) -> Iterator[list[int]]:
    """Yield the positions of each file that is there more than once.

    Few files are read: only those of one length whose first and last bytes agree.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name, text in (("a", "x"), ("b", "y"), ("c", "x")):
        ...     _ = (folder / name).write_text(text)
        >>> list(repeated([f"{folder}/a", f"{folder}/b", f"{folder}/./b", f"{folder}/c"]))
        [[0, 3], [1, 2]]
    """
    with ThreadPoolExecutor() as pool:
        files = _grouped(range(len(paths)), pool.map(_identity, paths, chunksize=256))
        # One name of each file; those that could not be looked at are files of their own.
        groups = [[members[0] for members in files.values()]]
        for look in (_size, _ends, _digest):
            suspects = [i for group in groups for i in group]
            keys = dict(zip(suspects, pool.map(look, (paths[i] for i in suspects), chunksize=64), strict=True))
            groups = [
                part
                for group in groups
                for key, part in _grouped(group, (keys[i] for i in group)).items()
                if key is not None and len(part) > 1
            ]
    same = {group[0]: group for group in groups}
    copied = {i for group in groups for i in group[1:]}
    of_file = {members[0]: members for members in files.values()}
    for first in of_file:
        if first not in copied:
            found = sorted(i for one in same.get(first, [first]) for i in of_file[one])
            if len(found) > 1:
                yield found


def _grouped(items: Iterable[int], keys: Iterable[object]) -> dict[object, list[int]]:
    groups = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        groups[key].append(item)
    return groups


def _identity(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path) or None
    except OSError:
        return None


def _ends(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            first = file.read(_ENDS)
            file.seek(-min(_ENDS, os.path.getsize(path)), os.SEEK_END)
            return hashlib.blake2b(first + file.read(_ENDS), digest_size=16).digest()
    except OSError:
        return None


def _digest(path: str) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return None
    return digest.digest()

"""Shards on disk: a folder of indexes, `index-00003-of-00016`, each an index like any other."""

import os
import pathlib
import re

from tf_detreg.retrieval import bulk_shards

_SHARD = re.compile(r"index-(\d{5})-of-(\d{5})")


def name_of(shard: int, shards: int) -> str:
    """Return the name of a shard's directory.

    Example:
        >>> name_of(3, 16)
        'index-00003-of-00016'
    """
    return bulk_shards.name_of("index", shard, shards, "").rstrip(".")


def present(directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Return the shards that a directory holds, in order; an empty list where it holds none or is not there."""
    found = pathlib.Path(directory).glob("index-*-of-*")
    return sorted(path for path in found if _SHARD.fullmatch(path.name))


def complete(directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Return all shards of one build.

    Raises:
        ValueError: If there are none, or some are missing, or they are of several builds.
    """
    folder, found = pathlib.Path(directory), present(directory)
    counts = {path.name[-5:] for path in found}
    if not found:
        raise ValueError(f"`directory` must hold shards, index-00000-of-…; received {str(folder)!r}, which has none.")
    if len(counts) > 1 or len(found) != int(found[0].name[-5:]):
        raise ValueError(
            f"`directory` must hold all shards of one build; received {str(folder)!r} with {len(found)} of "
            f"{' and of '.join(str(int(count)) for count in sorted(counts))}{_missing(found)}. Put back what "
            "is missing, or make the shards again in a new folder."
        )
    return found


def _missing(found: list[pathlib.Path]) -> str:
    shards = int(found[0].name[-5:])
    names = {path.name for path in found}
    missing = [name for name in (name_of(shard, shards) for shard in range(shards)) if name not in names]
    return f": {missing[0]} is not there" if missing else ""

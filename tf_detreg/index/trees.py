"""The ScaNN tree of an index: over one segment, in a folder of its own, with checksums."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_detreg import manifests
from tf_detreg.index import segments
from tf_detreg.index.segments import Segment
from tf_detreg.retrieval import approximate, saved_tree

FOLDER = "trees"


def build(base: Segment, depth: int, progress: bool | None = None) -> approximate.Calibrated:
    """Build and tune a tree on items of the segment as queries, which must not find themselves.

    Args:
        base: The segment; what was removed from it stays in the tree.
        depth: How many neighbors will be asked for.
        progress: Whether to show progress; None shows it in a terminal.
    """
    live = np.arange(base.count) if base.removed is None else np.flatnonzero(~base.removed)
    rows = np.sort(np.random.default_rng(0).permutation(live)[: 2 * approximate.SAMPLE])
    sample = np.ascontiguousarray(base.vectors[rows])
    return approximate.calibrate(sample, base.vectors, depth, rows, progress=progress)


def save(directory: pathlib.Path, base: Segment, tuned: approximate.Calibrated) -> dict[str, Any]:
    """Write a tree into a new folder of the index.

    Returns:
        What `load` has to know; plain JSON.

    Raises:
        OSError: If it cannot be written.
    """
    folder = directory / FOLDER / f"{base.number:08d}-{tuned.depth}"
    if folder.exists():  # of a writer that was killed before the index knew of it
        shutil.rmtree(folder)
    folder.parent.mkdir(exist_ok=True)
    facts = saved_tree.save(tuned, folder)
    files = {file.name: manifests.sha256(file) for file in sorted(folder.iterdir())}
    return {**facts, "segment": base.number, "folder": folder.name, "files": files}


def load(directory: pathlib.Path, base: Segment, facts: Mapping[str, Any]) -> approximate.Calibrated | None:
    """Read a tree; None where ScaNN is missing or of another version than the one that wrote it.

    Raises:
        ValueError: If it is damaged.
    """
    folder = directory / FOLDER / facts["folder"]
    verify(directory, facts)
    try:
        vectors = directory / segments.FOLDER / base.file
        return saved_tree.load(folder, vectors, base.vectors.shape, facts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise segments.damaged(directory, f"its ScaNN tree cannot be read: {error}") from error


def verify(directory: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Compare a tree's files with their checksums.

    Raises:
        ValueError: If one is missing, unknown or changed.
    """
    folder = directory / FOLDER / facts["folder"]
    if set(facts["files"]) != set(saved_tree.files(facts["soar"])):
        raise segments.damaged(directory, "the list of its tree's files is not as it should be")
    for name, known in facts["files"].items():
        if not (folder / name).is_file() or manifests.sha256(folder / name) != known:
            raise segments.damaged(
                directory, f"{FOLDER}/{facts['folder']}/{name} is missing or does not match its checksum"
            )


def drop_others(directory: pathlib.Path, facts: Mapping[str, Any] | None) -> None:
    """Remove trees that the index no longer uses."""
    for folder in (directory / FOLDER).glob("*"):
        if facts is None or folder.name != facts["folder"]:
            shutil.rmtree(folder, ignore_errors=True)

"""The searcher of an index: over one segment, in a folder of its own, with checksums.

It is a ScaNN tree, a graph of usearch, or compressed vectors: each is tuned against exact search and knows its recall.
A searcher that is kept may be of use to other machines than this one: what reads the index never takes it away.
"""

import importlib.metadata
import logging
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_detreg import manifests
from tf_detreg.index import segments
from tf_detreg.index.segments import Segment
from tf_detreg.retrieval import approximate, choosing, codes, graphs, product, saved_tree
from tf_detreg.retrieval.report import named

logger = logging.getLogger(__name__)
FOLDER = "trees"
ENGINES = choosing.ENGINES
TARGET = 0.99  # share of the true neighbors that searchers are tuned to find
_LACKING = 0.02  # below the recall that is asked for: then a searcher is of no use
_FORMS: dict[str, Any] = dict.fromkeys(codes.KINDS, codes) | {
    "scann": saved_tree,
    "usearch": graphs,
    product.KIND: product,
}
_NEEDS = {"scann": "scann", "usearch": "usearch", product.KIND: "scann"}


class NoEngine(Exception):
    """No engine could build a searcher; the text says why."""


def sample(base: Segment, count: int = 2 * approximate.SAMPLE) -> tuple[np.ndarray, np.ndarray]:
    """Return some live items of a segment: their positions in it, ascending, and their vectors."""
    live = np.arange(base.count) if base.removed is None else np.flatnonzero(~base.removed)
    rows = np.sort(np.random.default_rng(0).permutation(live)[:count])
    return rows, np.ascontiguousarray(base.vectors[rows])


def build(
    base: Segment, depth: int, progress: bool | None = None, engine: str = "auto"
) -> tuple[str, approximate.Calibrated]:
    """Build and tune a searcher on items of the segment as queries, which must not find themselves.

    Of several engines that are installed, the one that was faster on a part of a large segment is taken. One that fails
    is passed over, and the log says so.

    Args:
        base: The segment; what was removed from it stays in the searcher.
        depth: How many neighbors will be asked for.
        progress: Whether to show progress; None shows it in a terminal.
        engine: One of `ENGINES`, or `"auto"`, the default.

    Returns:
        The engine and the searcher.

    Raises:
        NoEngine: If none is installed and works.
    """
    names, reasons = choosing.usable(engine), []
    if len(names) > 1 and base.count >= approximate.TRIALS_FROM:
        names = fastest(base, depth, names)
    for name in names:
        try:
            tuned = _calibrated(base, depth, progress, choosing.builder(name, progress))
            if tuned.recall >= TARGET - _LACKING:
                return name, tuned
            reasons.append(f"{name} finds {100 * tuned.recall:.1f} % of the true neighbors")
        except (MemoryError, AssertionError):
            raise
        except Exception as error:  # an engine is optional, and anything may be wrong with it
            reasons.append(f"{name} failed ({type(error).__name__}: {error})")
        logger.warning("%s; another engine answers.", reasons[-1])
    if not names:
        reasons = [choosing.reasons(engine)]
    raise NoEngine("; ".join(reasons))


def compress(
    base: Segment, depth: int, layout: codes.Layout, target: float, progress: bool | None = None
) -> approximate.Calibrated:
    """Compress a segment and tune the search in it; arguments as for `build`, and the share of neighbors to find.

    Raises:
        ImportError: If product quantization is asked for and ScaNN cannot be used.
    """
    if layout.kind != product.KIND:
        return _calibrated(base, depth, progress, lambda gallery, k, _: codes.Codes.build(gallery, k, layout), target)
    if (reason := approximate.available()) is not None:
        raise ImportError(f"`kind`={layout.kind!r} is ScaNN's. {reason}")
    return _calibrated(base, depth, progress, lambda gallery, k, _: product.Product.compressed(gallery, k), target)


def _calibrated(
    base: Segment, depth: int, progress: bool | None, builder: Callable[..., Any] | None, target: float | None = None
) -> approximate.Calibrated:
    rows, queries = sample(base)
    target = TARGET if target is None else target
    return approximate.calibrate(queries, base.vectors, depth, rows, target, progress=progress, build=builder)


def fastest(base: Segment, depth: int, names: Sequence[str]) -> list[str]:
    """Return engines, that first which answered queries soonest on a part of the segment.

    Each is tuned to the same recall. One that fails is left out.
    """
    _, vectors = sample(base, choosing.PART)
    found = choosing.trials(vectors, depth, names, TARGET)
    return sorted(found, key=lambda name: found[name].query)


def save(directory: pathlib.Path, base: Segment, engine: str, tuned: approximate.Calibrated) -> dict[str, Any]:
    """Write a searcher into a new folder of the index.

    Returns:
        What `load` has to know; plain JSON.

    Raises:
        OSError: If it cannot be written.
    """
    folder = directory / FOLDER / f"{base.number:08d}-{tuned.depth}{'' if engine == 'scann' else f'-{engine}'}"
    if folder.exists():  # of a writer that was killed before the index knew of it, or another of the same form
        shutil.rmtree(folder)
    folder.parent.mkdir(exist_ok=True)
    facts = _FORMS[engine].save(tuned, folder)
    files = {file.name: manifests.sha256(file) for file in sorted(folder.iterdir())}
    return {**facts, "engine": engine, "segment": base.number, "folder": folder.name, "files": files}


def load(directory: pathlib.Path, base: Segment, facts: Mapping[str, Any]) -> approximate.Calibrated | None:
    """Read a searcher; None where its engine is missing or of another version than the one that wrote it.

    Raises:
        ValueError: If it is damaged.
    """
    folder = directory / FOLDER / facts["folder"]
    verify(directory, facts)
    try:
        vectors = directory / segments.FOLDER / base.file
        return _form(directory, facts).load(folder, vectors, base.vectors, facts)  # type: ignore[no-any-return]  # a module
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise segments.damaged(directory, f"its search tree cannot be read: {error}") from error


def engine_of(facts: Mapping[str, Any]) -> str:
    """Return the engine or kind of a searcher."""
    return str(facts.get("engine", "scann"))


def refusal(facts: Mapping[str, Any]) -> str | None:
    """Return why a kept searcher cannot be used here though other machines may use it; None where it can be.

    One that an older version of its engine wrote is no such case: it is built again, for all.
    """
    needed = _NEEDS.get(engine_of(facts))
    if needed is None:
        return None
    reason = choosing.available(needed)
    if reason is None:
        written, here = str(facts.get(needed, "0")), importlib.metadata.version(needed)
        if _number(written) <= _number(here):
            return None
        reason = f"{named(needed)} {written} wrote it and {here} is installed."
    return (
        f"The index keeps a searcher of {named(needed)}, which was left as it is. {reason} Exact search answered; "
        "`Index.tune` puts a search tree in its place that works here."
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _form(directory: pathlib.Path, facts: Mapping[str, Any]) -> Any:
    engine = engine_of(facts)
    if engine not in _FORMS:
        raise ValueError(f"The index {str(directory)!r} is searched by {engine!r}, which this version does not know.")
    return _FORMS[engine]


def verify(directory: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Compare a searcher's files with their checksums.

    Raises:
        ValueError: If one is missing, unknown or changed.
    """
    folder = directory / FOLDER / facts["folder"]
    if set(facts["files"]) != set(_form(directory, facts).files(facts)):
        raise segments.damaged(directory, "the list of its tree's files is not as it should be")
    for name, known in facts["files"].items():
        if not (folder / name).is_file() or manifests.sha256(folder / name) != known:
            raise segments.damaged(
                directory, f"{FOLDER}/{facts['folder']}/{name} is missing or does not match its checksum"
            )


def drop_others(directory: pathlib.Path, facts: Mapping[str, Any] | None) -> None:
    """Remove searchers that the index no longer uses."""
    for folder in (directory / FOLDER).glob("*"):
        if facts is None or folder.name != facts["folder"]:
            shutil.rmtree(folder, ignore_errors=True)

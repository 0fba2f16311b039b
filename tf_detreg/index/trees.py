"""The searcher of an index: over one segment, in a folder of its own, with checksums.

It is a ScaNN tree, a graph of usearch, or compressed vectors: each is tuned against exact search and knows its recall.
"""

import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_detreg import manifests
from tf_detreg.index import segments
from tf_detreg.index.segments import Segment
from tf_detreg.retrieval import approximate, codes, graphs, saved_tree

logger = logging.getLogger(__name__)
FOLDER = "trees"
ENGINES = ("scann", "usearch")
TARGET = 0.99  # share of the true neighbors that searchers are tuned to find
_LACKING = 0.02  # below the recall that is asked for: then a searcher is of no use
_TRIAL = 20_000  # items on which two engines are compared
_FORMS: dict[str, Any] = {"scann": saved_tree, "usearch": graphs} | dict.fromkeys(codes.KINDS, codes)


class NoEngine(Exception):
    """No engine could build a searcher; the text says why."""


def available(engine: str) -> str | None:
    """Return why an engine cannot be used here; None when it can."""
    return {"scann": approximate.available, "usearch": graphs.available}[engine]()


def usable(engine: str = "auto") -> list[str]:
    """Return the engines that may build a searcher, the one to prefer first."""
    return [name for name in ENGINES if engine in ("auto", name) and available(name) is None]


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
    names, reasons = usable(engine), []
    if len(names) > 1 and base.count >= approximate.TRIALS_FROM:
        names = fastest(base, depth, names, progress)
    for name in names:
        try:
            tuned = _calibrated(base, depth, progress, _builder(name, progress))
            if tuned.recall >= TARGET - _LACKING:
                return name, tuned
            reasons.append(f"{name} finds {100 * tuned.recall:.1f} % of the true neighbors")
        except (MemoryError, AssertionError):
            raise
        except Exception as error:  # an engine is optional, and anything may be wrong with it
            reasons.append(f"{name} failed ({type(error).__name__}: {error})")
        logger.warning("%s; another engine answers.", reasons[-1])
    if not names:
        reasons = [build_reasons(engine)]
    raise NoEngine("; ".join(reasons))


def build_reasons(engine: str) -> str:
    """Return why no engine can build a searcher."""
    return "; ".join(filter(None, (available(name) for name in ENGINES if engine in ("auto", name))))


def compress(
    base: Segment, depth: int, layout: codes.Layout, target: float, progress: bool | None = None
) -> approximate.Calibrated:
    """Compress a segment and tune the search in it; arguments as for `build`, and the share of neighbors to find."""
    return _calibrated(base, depth, progress, lambda gallery, k, _: codes.Codes.build(gallery, k, layout), target)


def _builder(engine: str, progress: bool | None) -> Callable[..., Any] | None:
    if engine == "scann":
        return None
    return lambda gallery, k, _: graphs.Graph.build(gallery, k, progress=progress)


def _calibrated(
    base: Segment, depth: int, progress: bool | None, builder: Callable[..., Any] | None, target: float | None = None
) -> approximate.Calibrated:
    rows, queries = sample(base)
    target = TARGET if target is None else target
    return approximate.calibrate(queries, base.vectors, depth, rows, target, progress=progress, build=builder)


def fastest(base: Segment, depth: int, names: Sequence[str], progress: bool | None = None) -> list[str]:
    """Return engines, that first which answered queries soonest on a part of the segment.

    Each is tuned to the same recall. One that fails is left out.
    """
    _, vectors = sample(base, _TRIAL)
    queries = vectors[:: max(1, len(vectors) // approximate.SAMPLE)]
    k = min(depth, len(vectors) - 1)
    kth = approximate.truth(queries, vectors, k, None, False)
    seconds = {}
    for name in names:
        try:
            tree: Any = approximate.Tree if name == "scann" else graphs.Graph
            made = tree.build(vectors, k, approximate.LAYOUTS[0])
            made.tune(queries, k, None, kth, TARGET)
            times = []
            for _ in range(3):
                began = time.perf_counter()
                made.search(queries, k)
                times.append(time.perf_counter() - began)
            seconds[name] = min(times)
        except Exception as error:  # optional, as above
            logger.warning("%s failed (%s: %s).", name, type(error).__name__, error)
    logger.info("Engines on %d items: %s", len(vectors), ", ".join(f"{n} {s:.2f} s" for n, s in seconds.items()))
    return sorted(seconds, key=lambda name: seconds[name])


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
        return _form(directory, facts).load(folder, vectors, base.vectors, facts)  # type: ignore[no-any-return]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise segments.damaged(directory, f"its search tree cannot be read: {error}") from error


def engine_of(facts: Mapping[str, Any]) -> str:
    """Return the engine or kind of a searcher."""
    return str(facts.get("engine", "scann"))


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

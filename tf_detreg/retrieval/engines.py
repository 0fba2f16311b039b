"""Which engine answers: exact search, or an approximate one that is faster and measured to be as right as asked."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tf_detreg import checks
from tf_detreg.retrieval import approximate, choosing, exact, metrics
from tf_detreg.retrieval.ranking import Block, Vectors
from tf_detreg.retrieval.report import Approximation, named
from tf_detreg.retrieval.tasks import Found, Task, listed_ranks

if TYPE_CHECKING:
    from tf_detreg.retrieval.rescoring import Rescoring


_DEEPEST = 1_000  # ranks that an approximate engine is asked for, at most
_TOO_SMALL = 1e11  # multiplications; less than this is done before its cost would be measured
_NEVER_BELOW = 10.0  # seconds of exact search that no tree can beat with its build
_TRIED_FROM = 60.0  # seconds of exact search from which on it is worth while to try engines on a part
_MARGIN = 0.6  # near the break-even, exact search is the better choice: its time is certain and so are its numbers


def run(task: Task, engine: str, target_recall: float) -> Found:
    """Return every metric of every query, by the engine asked for.

    Raises:
        ValueError: If the engine is unknown or `target_recall` is not a share.
    """
    checks.choice("engine", engine, ENGINES)
    return ENGINES[engine](task, checks.within("target_recall", target_recall, 0, 1, "(]"))


def exactly(task: Task, target_recall: float) -> Found:
    """Compute every metric of every query by exact search."""
    return _exactly(task)


def by_scann(task: Task, target_recall: float) -> Found:
    """Compute every metric of every query by ScaNN where it is there and fits, and by exact search elsewhere."""
    return _by(task, "scann", target_recall)


def by_usearch(task: Task, target_recall: float) -> Found:
    """Compute every metric of every query by usearch where it is there and fits, and by exact search elsewhere."""
    return _by(task, "usearch", target_recall)


def by_the_quicker(task: Task, target_recall: float) -> Found:
    """Compute every metric of every query by the engine that is expected to be done first."""
    budget = _exact_seconds(task)
    if budget < _NEVER_BELOW or _unfit(task) is not None:
        return _exactly(task)
    expected = _expected_seconds(task, budget, target_recall)
    if not expected:
        return _exactly(task, choosing.reasons())
    engine = min(expected, key=lambda name: expected[name])
    if expected[engine] > _MARGIN * budget:
        return _exactly(task)
    try:
        return _by(task, engine, target_recall, budget)
    except approximate.EngineFailed as error:
        return _exactly(task, f"{error}; exact search answered instead.")


ENGINES: dict[str, Callable[[Task, float], Found]] = {
    "auto": by_the_quicker,
    "exact": exactly,
    "scann": by_scann,
    "usearch": by_usearch,
}
"""What a name of an engine stands for: from what is asked and the least recall to what was found."""


def _by(task: Task, engine: str, target_recall: float, budget: float = np.inf) -> Found:
    if (reason := choosing.available(engine) or _unfit(task)) is not None:
        return _exactly(task, reason)
    return _approximately(task, engine, target_recall, budget)


def _exactly(task: Task, *notes: str) -> Found:
    return Found(task.exactly(progress=task.progress), "exact", notes=notes)


def _unfit(task: Task) -> str | None:
    if len(task.gallery) < approximate.SMALLEST_GALLERY:
        return f"Exact search was used: a gallery of {len(task.gallery)} items is too small for a search tree."
    if (most := task.rules.left_out().max()) > _DEEPEST:
        return (
            f"Exact search was used: up to {most} items leave a query's gallery, more than is asked of a search tree."
        )
    return None


def _exact_seconds(task: Task) -> float:
    """Return the measured cost of exact search: the slope between a few and more queries; 0 where it hardly matters."""
    if len(task.queries) * task.gallery.size < _TOO_SMALL:
        return 0.0
    block = exact.workers() * exact.block_size(len(task.gallery), task.rules.largest_class)
    few, more = min(block, len(task.queries)), min(3 * block, len(task.queries))
    if more <= few:
        return 0.0
    seconds = []
    for count in (few, few, more):  # the first run warms up
        began = time.perf_counter()
        task.exactly(np.arange(count))
        seconds.append(time.perf_counter() - began)
    return max(seconds[2] - seconds[1], 0.0) / (more - few) * len(task.queries)


def _expected_seconds(task: Task, exact_seconds: float, target: float) -> dict[str, float]:
    """Return the expected cost of the engines that are installed.

    That of ScaNN alone follows from the cost of exact search. Where usearch is there, both are tried on a part of the
    gallery: the search of a tree grows with the root of the items, as its leaves do, that of a graph with their
    logarithm.
    """
    names = choosing.usable()
    if exact_seconds < _TRIED_FROM:
        names = [name for name in names if name == "scann"]
    if names in ([], ["scann"]):
        return {name: _tree_seconds(task, exact_seconds) for name in names}
    items, queries = len(task.gallery), len(task.queries)
    rows = np.random.default_rng(task.seed).permutation(items)[: choosing.PART]
    part = np.ascontiguousarray(task.gallery[np.sort(rows)])
    larger, deeper = items / len(part), np.log(items) / np.log(len(part))
    truth = 2 * approximate.SAMPLE * exact_seconds / queries
    expected = {}
    for name, (build, query) in choosing.trials(part, max(task.ks), names, target).items():
        if name == "scann":
            searching = query * larger**0.5 * queries
            expected[name] = _tree_seconds(task, exact_seconds) - exact_seconds / 20 + searching
        else:
            expected[name] = build * larger * deeper + truth + query * deeper * queries
    return expected


def _tree_seconds(task: Task, exact_seconds: float) -> float:
    """Return the expected cost of ScaNN: trees, exact search of the samples, and a search twenty times faster."""
    items = len(task.gallery)
    one_query = exact_seconds / len(task.queries)
    trees = _build_seconds(items, one_query / items)
    if items >= approximate.TRIALS_FROM:
        for part in approximate.trial_items(items):
            trees += len(approximate.LAYOUTS) * _build_seconds(part, one_query / items)
    return trees + 2 * approximate.SAMPLE * one_query + exact_seconds / 20


def _build_seconds(items: int, one_score: float) -> float:
    """Return the expected cost of a tree, in units of the measured cost of one score.

    Sorting N items into L leaves takes N·L scores, training the leaves on T items in twelve rounds 12·T·L. Twice that,
    for what is not a matrix product, and three seconds for training the codes.
    """
    leaves = approximate.LAYOUTS[0].leaves(items)
    return 2 * leaves * (items + 12 * min(items, approximate.TRAINING)) * one_score + 3.0


def _approximately(task: Task, engine: str, target: float, budget: float) -> Found:
    rules = task.rules
    relevant, left_out = int(rules.relevant().max()), int(rules.left_out().max())
    depth, notes = max(task.ks), []
    dropped = {"mrr", "map"}
    if task.what == "all" and relevant <= _DEEPEST:
        depth = max(depth, relevant)
    elif task.what == "all":
        dropped |= {"map@r", "r_precision"}
    dropped &= set(metrics.names(task.ks, task.what))
    if dropped:
        names = ", ".join(sorted(dropped))
        notes.append(f"{named(engine)} finds the {depth} nearest items; {names} need more ranks and were left out.")
    depth = min(depth + left_out - rules.searches_itself, len(task.gallery) - rules.searches_itself)
    own = np.arange(len(task.queries)) if rules.searches_itself else None
    build = choosing.builder(engine, task.progress)
    tuned = approximate.calibrate(task.queries, task.gallery, depth, own, target, task.seed, task.progress, build=build)
    began = time.perf_counter()
    measured, _ = _by_tree(task, tuned.tree, tuned.sample, depth, dropped)
    remaining = (time.perf_counter() - began) / len(tuned.sample) * len(task.queries)
    if remaining > budget:
        return _exactly(
            task,
            f"A tuned searcher of {named(engine)} would have taken {remaining:.0f} s, exact search {budget:.0f} s.",
        )
    table, exactly = _by_tree(task, tuned.tree, np.arange(len(task.queries)), depth, dropped, task.progress)
    if exactly:
        notes.append(
            f"Exact search answered {exactly:,} queries whose list of {depth} nearest items ends within a tie: "
            f"{named(engine)} cannot tell how far it goes on."
        )
    truth = task.exactly(tuned.sample)
    names = [name for name in metrics.names(task.ks, task.what) if name not in dropped]
    approximation = Approximation(
        recall=tuned.recall,
        interval=tuned.interval,
        at=depth,
        target=target,
        sample=len(tuned.sample),
        metric_error={name: _error(measured.values[name] - truth.values[name]) for name in names},
        settings=tuned.tree.settings(),
        build_seconds=tuned.seconds,
    )
    return Found(table, engine, approximation, tuple(notes))


def _error(differences: np.ndarray) -> tuple[float, float, float]:
    """Return mean and 95 % interval, at least ±3/n wide: none seen among n does not make it impossible."""
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return float("nan"), float("nan"), float("nan")
    mean = float(differences.mean())
    half = max(1.96 * float(differences.std()) / len(differences) ** 0.5, 3 / len(differences))
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def _by_tree(
    task: Task,
    tree: "approximate.Tree | Rescoring",
    rows: np.ndarray,
    depth: int,
    dropped: set[str],
    progress: bool | None = False,
) -> tuple[metrics.Table, int]:
    """Return the table of some queries, and how many of them exact search answered as their list ends in a tie."""
    own = rows if task.rules.searches_itself else None
    ids, scores = tree.search(task.queries[rows], depth, own, progress)
    vectors = Vectors(task.queries, task.gallery)
    table = metrics.Table.empty(len(rows), [name for name in metrics.names(task.ks, task.what) if name not in dropped])
    unsure = []
    for start in range(0, len(rows), 1_024):
        part = slice(start, start + 1_024)
        block = Block(scores[part], rows[part], vectors, ids[part])
        ranks, cut = listed_ranks(block, task.rules)
        table.fill(part, ranks, task.ks, task.what)
        unsure.append(start + cut)
    unsure = np.concatenate(unsure)
    if len(unsure):
        table.put(unsure, task.exactly(rows[unsure]))
    return table, len(unsure)

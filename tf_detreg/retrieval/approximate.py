"""ScaNN that tunes itself against exact search, and says how far off it is.

A tree of leaves is built once; how many leaves a query visits, and how many candidates are scored again exactly,
can be chosen at each search. Both are found on a sample of queries whose true neighbors exact search has found, and
the result is measured on another sample, so that the number in the report is not the one that was optimized.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg.progress import ticker
from tf_detreg.retrieval import exact, intervals, scann_library

if TYPE_CHECKING:
    from tf_detreg.retrieval.rescoring import Rescoring

SMALLEST_GALLERY = 1_000  # a tree below this has nothing to gain
TRIALS_FROM = 200_000  # items; from here on choosing the layout on a part costs less than it saves
# Parts of the gallery. One part misleads: a second leaf (SOAR) costs time at once and saves more the larger the gallery
# is, so the winner on a small part may lose on the whole. Hence two parts, and the times carried on.
TRIAL_SHARES = (0.05, 0.2)
SAMPLE = 1_000  # queries to tune on, and as many again to measure on
TRAINING = 100_000
_BATCH = 8_192
ROUNDING = 1e-6  # between the float32 scores of ScaNN and of exact search


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tree is laid out.

    Args:
        dims: Dimensions that share one 4-bit code. Default 2.
        soar: Whether each item also lies in a second leaf. Default False.
        density: Leaves in multiples of √N. Default 1.
    """

    dims: int = 2
    soar: bool = False
    density: float = 1.0

    def leaves(self, items: int) -> int:
        """Return the number of leaves of a tree of so many items."""
        result: int = max(1, round(self.density * items**0.5))
        return result


LAYOUTS = (Layout(), Layout(soar=True), Layout(dims=4), Layout(dims=4, soar=True), Layout(density=2.0))


class EngineFailed(RuntimeError):
    """The library of an approximate engine failed while it built a searcher or searched one."""


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Tell an error of an engine's library from one of ours."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise EngineFailed(f"{name} failed: {error}") from error


def available() -> str | None:
    """Return why ScaNN cannot be used here; None when it can."""
    try:
        scann_library.searchers()
    except Exception as error:  # an engine is optional, and anything may be wrong with it
        return (
            f"ScaNN cannot be loaded ({error}); exact search answers instead. On Linux (x86-64): "
            "pip install 'tf-detreg[retrieval]'."
        )
    return None


def truth(
    queries: np.ndarray, gallery: np.ndarray, k: int, own: np.ndarray | None, progress: bool | None = None
) -> np.ndarray:
    """Return (Q,) the score of each query's k-th true neighbor: who scores as high is one of the k nearest."""
    return exact.search(queries, gallery, k, own, progress)[1][:, -1]


class Tree:
    """A ScaNN searcher with its settings.

    Args:
        searcher: What ScaNN built or loaded.
        shape: (N, dim) of the gallery.
        layout: How it is laid out.
        visited: Leaves that a query visits. Default: all.
        rescored: Candidates that are scored again exactly. Default: all.
    """

    def __init__(
        self,
        searcher: Any,
        shape: tuple[int, int],
        layout: Layout,
        visited: int | None = None,
        rescored: int | None = None,
    ) -> None:
        self.searcher = searcher
        self.size, self.dim = shape
        self.layout = layout
        self.leaves = layout.leaves(self.size)
        self.visited = visited or self.leaves
        self.rescored = rescored or self.size
        if hasattr(searcher, "set_num_threads"):  # TensorFlow's operations use TensorFlow's threads
            searcher.set_num_threads(exact.workers())

    @classmethod
    def build(cls, gallery: np.ndarray, k: int, layout: Layout = LAYOUTS[0], in_tensorflow: bool = False) -> "Tree":
        """Sort a gallery into leaves and compress it.

        Args:
            gallery: (N, dim) float32 unit rows.
            k: Neighbors that will be asked for.
            layout: How to lay it out.
            in_tensorflow: Default False. True builds it of TensorFlow's operations, which a SavedModel can hold.
        """
        library = scann_library.operations() if in_tensorflow else scann_library.searchers()
        with errors_of("ScaNN"):
            searcher = sorting(library, gallery, k, layout).reorder(min(len(gallery), max(4 * k, 100))).build()
        return cls(searcher, gallery.shape, layout)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        own: np.ndarray | None = None,
        progress: bool | None = False,
        wider: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (Q, k) and scores (Q, k), best first. A missing item is -1 with a score of minus infinity.

        `wider` times as many leaves are visited, and candidates rescored, as the tree was tuned to.
        """
        visited, rescored = self._settings(wider)
        more = k + (own is not None)
        ids = np.empty((len(queries), more), np.int64)
        scores = np.empty((len(queries), more), np.float32)
        with ticker("Searching (ScaNN)", len(queries), progress) as tick:
            for start in range(0, len(queries), _BATCH):
                rows = slice(start, start + _BATCH)
                block = np.ascontiguousarray(queries[rows])
                with errors_of("ScaNN"):
                    ids[rows], scores[rows] = self.searcher.search_batched_parallel(
                        block, more, max(more, rescored), visited
                    )
                tick(len(block))
        missing = ~np.isfinite(scores)
        ids[missing], scores[missing] = -1, -np.inf
        if own is None:
            return ids, scores
        scores[ids == own[:, None]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _settings(self, wider: float) -> tuple[int, int]:
        """Return how many leaves are visited and candidates rescored, at so many times what was tuned."""
        return min(self.leaves, round(wider * self.visited)), min(self.size, round(wider * self.rescored))

    def found(self, queries: np.ndarray, k: int, own: np.ndarray | None, kth: np.ndarray) -> np.ndarray:
        """Return (Q,) share of each query's k true neighbors that a search finds."""
        result: np.ndarray = (self.search(queries, k, own)[1] >= kth[:, None] - ROUNDING).mean(axis=1)
        return result

    def tune(self, queries: np.ndarray, k: int, own: np.ndarray | None, kth: np.ndarray, target: float) -> None:
        """Find the fewest visited leaves, then the fewest rescored candidates, that reach the target on a sample.

        With all leaves visited and everything rescored the search is exact, so that the target is always reached.
        """

        def reaches(visited: int, rescored: int) -> bool:
            self.visited, self.rescored = min(visited, self.leaves), min(rescored, self.size)
            result: bool = self.found(queries, k, own, kth).mean() >= target
            return result

        plenty = max(8 * k, 400)
        while not reaches(self.leaves, plenty) and plenty < self.size:
            plenty *= 4
        low, high = 0, 4
        while high < self.leaves and not reaches(high, plenty):
            low, high = high, 2 * high
        high = min(high, self.leaves)
        while high - low > max(1, high // 8):
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle, plenty) else (middle, high)
        fewest = next((n for n in _steps(k, plenty) if reaches(high, n)), plenty)
        self.visited, self.rescored = high, min(fewest, self.size)

    def widen(self) -> bool:
        """Visit and rescore an eighth more; False when there is no more."""
        if self.visited == self.leaves and self.rescored == self.size:
            return False
        self.visited = min(self.leaves, self.visited + -(-self.visited // 8))
        self.rescored = min(self.size, self.rescored + -(-self.rescored // 8))
        return True

    def settings(self) -> dict[str, object]:
        """Return what was chosen, for reports."""
        return {
            "leaves": self.leaves,
            "leaves visited": self.visited,
            "candidates rescored": self.rescored,
            "dimensions per code": self.layout.dims,
            "SOAR": self.layout.soar,
        }


def sorting(library: Any, gallery: np.ndarray, k: int, layout: Layout) -> Any:
    """Return ScaNN's builder of leaves with codes, without the vectors beside them."""
    size, leaves = len(gallery), layout.leaves(len(gallery))
    soar = {"soar_lambda": 1.5, "overretrieve_factor": 2.0} if layout.soar else {}
    builder = library.builder(gallery, min(k, size), "dot_product")
    builder = builder.tree(leaves, min(leaves, 100), training_sample_size=min(size, TRAINING), **soar)
    return builder.score_ah(
        layout.dims, anisotropic_quantization_threshold=0.2, training_sample_size=min(size, TRAINING // 2)
    )


def _steps(first: int, last: int) -> list[int]:
    """Yield first, 1.5·first, 2.25·first, … below last."""
    steps = [first]
    while steps[-1] * 1.5 < last:
        steps.append(int(steps[-1] * 1.5) + 1)
    return steps


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A tuned tree and how well it does on queries that it was not tuned on.

    Args:
        tree: The tree, or another searcher that tunes itself.
        sample: (s,) the queries measured on.
        recall: Share of their true neighbors that were found.
        interval: 95 % interval of `recall`; queries, not neighbors, are the independent trials.
        seconds: Building, exact search for the samples, and tuning.
        depth: How many neighbors it was measured on.
    """

    tree: "Tree | Rescoring"
    sample: np.ndarray
    recall: float
    interval: tuple[float, float]
    seconds: float
    depth: int

    def facts(self) -> dict[str, object]:
        """Return what was measured, as plain JSON."""
        interval = list(self.interval)
        return {"depth": self.depth, "recall": self.recall, "interval": interval, "seconds": self.seconds}

    @classmethod
    def of(cls, tree: "Tree | Rescoring", facts: Mapping[str, Any]) -> "Calibrated":
        """Return a searcher with what `facts` says was measured of it.

        Raises:
            KeyError, TypeError, ValueError: If something is missing or of another type.
        """
        low, high = map(float, facts["interval"])
        none = np.empty(0, np.int64)
        return cls(tree, none, float(facts["recall"]), (low, high), float(facts["seconds"]), int(facts["depth"]))


def calibrate(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    own: np.ndarray | None = None,
    target: float = 0.99,
    seed: int = 0,
    progress: bool | None = None,
    layout: Layout | None = None,
    build: "Callable[[np.ndarray, int, Any], Tree | Rescoring] | None" = None,
) -> Calibrated:
    """Build and tune a tree for these queries.

    Args:
        queries: (Q, dim) float32 unit rows.
        gallery: (N, dim) float32 unit rows.
        k: The largest rank needed.
        own: (Q,) the item that each query is and must not find, or None, the default.
        target: Share of the k true neighbors to find. Default 0.99.
        seed: Of the sample.
        progress: Whether to show a progress bar; None shows it in a terminal.
        layout: How to lay it out. Default None: the fastest, tried out on parts of a large gallery.
        build: What builds a tree of a gallery, k and a layout. Default None: `Tree.build`.
    """
    began = time.perf_counter()
    rows = np.random.default_rng(seed).permutation(len(queries))[: 2 * SAMPLE]
    half = max(1, len(rows) // 2)
    tune_on, measure_on = np.sort(rows[:half]), np.sort(rows[half:] if len(rows) > 1 else rows)
    owns = {name: None if own is None else own[chosen] for name, chosen in (("tune", tune_on), ("measure", measure_on))}
    aim = target + 0.2 * (1 - target)
    kths = {}
    for name, chosen in (("tune", tune_on), ("measure", measure_on)):
        kths[name] = truth(queries[chosen], gallery, k, owns[name], progress)
    if layout is None and build is None and len(gallery) >= TRIALS_FROM:
        layout = fastest_layout(queries[tune_on], gallery, k, aim, seed, progress)
    with ticker("Building the ScaNN tree" if build is None else "Tuning", 2, progress) as tick:
        tree = (build or Tree.build)(gallery, k, layout or LAYOUTS[0])
        tick(1)
        tree.tune(queries[tune_on], k, owns["tune"], kths["tune"], aim)
        tick(1)
    while True:
        found = tree.found(queries[measure_on], k, owns["measure"], kths["measure"])
        if found.mean() >= target or not tree.widen():
            break
    interval = intervals.of_share(found.sum(), len(found))
    return Calibrated(tree, measure_on, float(found.mean()), interval, time.perf_counter() - began, k)


def trial_items(items: int) -> tuple[int, int]:
    """Return how large the two parts of a gallery are that the layouts are tried on."""
    small, large = (round(share * items) for share in TRIAL_SHARES)
    return small, large


def fastest_layout(
    queries: np.ndarray, gallery: np.ndarray, k: int, aim: float, seed: int, progress: bool | None = None
) -> Layout:
    """Return the layout expected to reach the aim soonest: timed on two parts, carried on by a power law."""
    order = np.random.default_rng(seed).permutation(len(gallery))
    sizes = trial_items(len(gallery))
    seconds: dict[Layout, list[float]] = {layout: [] for layout in LAYOUTS}
    with ticker("Choosing ScaNN's layout", len(LAYOUTS) * len(sizes), progress) as tick:
        for size in sizes:
            part = np.ascontiguousarray(gallery[np.sort(order[:size])])
            kth = truth(queries, part, k, None, progress=False)  # it has one bar, this one
            for layout, found in seconds.items():
                found.append(search_seconds(queries, part, k, layout, aim, kth))
                tick(1)
    further = np.log(len(gallery) / sizes[1]) / np.log(sizes[1] / sizes[0])
    return min(seconds, key=lambda layout: seconds[layout][1] * (seconds[layout][1] / seconds[layout][0]) ** further)


def search_seconds(queries: np.ndarray, part: np.ndarray, k: int, layout: Layout, aim: float, kth: np.ndarray) -> float:
    """Return the least time of three in which a tree of this layout, tuned to the aim, answers the queries."""
    tree = Tree.build(part, k, layout)
    tree.tune(queries, k, None, kth, aim)
    return least_seconds(tree, queries, k)


def least_seconds(tree: Any, queries: np.ndarray, k: int) -> float:
    """Return the least time of three in which a searcher answers the queries."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        tree.search(queries, k)
        times.append(time.perf_counter() - began)
    return min(times)

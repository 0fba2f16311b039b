"""Exact search and exact ranks by blocks of queries, in bounded memory.

One block of queries is compared with the whole gallery by one matrix product. The rank of a relevant item is then a
comparison and a count (`ranking`): 1 + (relevant items before it) + (irrelevant items that score as high or higher).

TensorFlow makes the product, because on CPUs with AVX-512 its kernels are almost twice as fast as those in NumPy's
wheel, and on a GPU if there is one; NumPy counts, on as many threads as there are cores. A gallery that is too large to
be copied is multiplied by NumPy where it lies, part by part, also when that is a file mapped into memory.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_detreg.progress import ticker
from tf_detreg.retrieval import metrics
from tf_detreg.retrieval.protocols import Protocol
from tf_detreg.retrieval.ranking import Block, Vectors, positive_ranks

_SCORES_BYTES = 160 << 20  # of all blocks in flight; a block may meet its predecessor, not yet freed
_TRANSPOSED_BYTES = 128 << 20  # galleries up to here are copied transposed: the product is faster, the copy small
_COPIED_BYTES = 256 << 20  # galleries up to here are copied into TensorFlow; larger ones NumPy reads where they are
_COPIED_FOR_FEW = 8 << 20  # galleries above are not copied for a few queries
_FEW = 16  # queries
_MOST_QUERIES = 512
_IN_PLACE = 64  # queries that meet a gallery together that is not copied: enough for the product to outweigh reading it


class Scores:
    """The matrix product of a block of queries with one gallery, on a GPU if there is one that holds the gallery.

    Args:
        gallery: (N, dim) float32 unit rows.
        few: Whether only a few queries will come: then a large gallery is not copied, which would take longer than to
            compare it with them. Default False.
    """

    def __init__(self, gallery: np.ndarray, few: bool = False) -> None:
        self._transposed = gallery.nbytes <= _TRANSPOSED_BYTES
        self._gallery, self._device = None, "/CPU:0"
        self._rows: np.ndarray | None = gallery
        if few and gallery.nbytes > _COPIED_FOR_FEW:
            return
        if tf.config.list_physical_devices("GPU"):
            with contextlib.suppress(tf.errors.ResourceExhaustedError):
                self._copy(gallery, "/GPU:0")
        if self._gallery is None and gallery.nbytes <= _COPIED_BYTES:
            self._copy(gallery, "/CPU:0")
        self._rows = gallery if self._gallery is None else None

    def _copy(self, gallery: np.ndarray, device: str) -> None:
        with tf.device(device):
            self._gallery = tf.constant(np.ascontiguousarray(gallery.T) if self._transposed else gallery)
        self._device = device

    @property
    def in_place(self) -> bool:
        """Return whether the gallery was not copied, so that parts of it can be compared alone."""
        return self._rows is not None

    def __call__(self, queries: np.ndarray, part: slice = slice(None)) -> np.ndarray:
        """Return a read-only (b, N) of (b, dim): NumPy looks into TensorFlow's memory, as a copy costs as much.

        Args:
            queries: (b, dim) float32 unit rows.
            part: Rows of a gallery that is `in_place`. Default: all.
        """
        if self._rows is not None:
            result: np.ndarray = np.matmul(queries, self._rows[part].T)
            return result
        with tf.device(self._device):
            return np.asarray(tf.matmul(queries, self._gallery, transpose_b=not self._transposed))


class _Settled:
    """While in use: one BLAS thread for each of our own, and no TensorFloat-32, with which GPUs keep three digits.

    Both are switches of the whole process. Searches may run in several threads at a time, as in a server: the first
    one sets the switches and the last one puts them back, in whatever order the others end.
    """

    def __init__(self) -> None:
        self._lock, self._users, self._undo = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                tensor_float = tf.config.experimental
                self._undo.callback(
                    tensor_float.enable_tensor_float_32_execution, tensor_float.tensor_float_32_execution_enabled()
                )
                tensor_float.enable_tensor_float_32_execution(False)
                self._undo.enter_context(_one_blas_thread())
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo.close()


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
    """Return a switch to one BLAS thread; one that does nothing, which costs time alone, without threadpoolctl."""
    controller = _blas()
    if controller is None:
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[object] = controller.limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _blas() -> Any:
    """Return what sets the threads of the BLAS libraries; None without threadpoolctl.

    Looking for them means to read the list of everything that the process has mapped, which takes longer than a search
    of a thousand items. NumPy's is there from the beginning, so that one look is enough.
    """
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


settled = _Settled()


def workers() -> int:
    """Return the threads to use: the cores this process may run on, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def block_size(gallery_size: int, largest_class: int = 0) -> int:
    """Return queries in a block, so that all blocks in flight stay within the memory bound."""
    bytes_a_query = 4 * gallery_size + 64 * largest_class
    return int(np.clip(_SCORES_BYTES // (workers() * bytes_a_query), 1, _MOST_QUERIES))


def in_blocks(count: int, size: int, task: Callable[[np.ndarray], object], title: str, progress: bool | None) -> None:
    """Call `task(rows)` for all blocks of 0..count-1 on all cores; the first error stops the rest."""
    blocks = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
    if len(blocks) == 1:  # starting threads takes longer than a short search
        with ticker(title, count, progress) as tick, settled:
            task(blocks[0])
            tick(count)
        return
    pool = concurrent.futures.ThreadPoolExecutor(workers())
    with ticker(title, count, progress) as tick, settled, pool:
        futures = {pool.submit(task, rows): len(rows) for rows in blocks}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                tick(futures[future])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def per_query(
    queries: np.ndarray,
    gallery: np.ndarray,
    protocol: Protocol,
    ks: tuple[int, ...],
    what: str = "all",
    rows: np.ndarray | None = None,
    progress: bool | None = None,
) -> metrics.Table:
    """Return every metric of every query, by exact search.

    Args:
        queries: (Q, dim) float32 unit rows.
        gallery: (N, dim) float32 unit rows.
        protocol: Who may find whom.
        ks: For recall and precision.
        what: Default `"all"`; or `"recall"`.
        rows: Which queries. Default: all.
        progress: Whether to show a progress bar. Default None, which shows it in a terminal.
    """
    rows = np.arange(len(queries)) if rows is None else rows
    scores, vectors = Scores(gallery), Vectors(queries, gallery)
    table = metrics.Table.empty(len(rows), metrics.names(ks, what))

    def task(part: np.ndarray) -> None:
        block = Block(scores(queries[rows[part]]), rows[part], vectors)
        ranks = positive_ranks(block, *protocol.same_class(rows[part]), first=what == "recall")
        table.fill(part, ranks, ks, what)

    in_blocks(len(rows), block_size(len(gallery), protocol.largest_class), task, "Ranking queries", progress)
    return table


def search(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    own: np.ndarray | None = None,
    progress: bool | None = None,
    left_out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest items of each query.

    Args:
        queries: (Q, dim) float32 unit rows.
        gallery: (N, dim) float32 unit rows.
        k: How many.
        own: (Q,) the item that each query is and must not find, or None, the default.
        progress: Whether to show a progress bar; None shows it in a terminal.
        left_out: (N,) True where an item is not to be found; at least k are to be. Default: all are.

    Returns:
        Ids (Q, k) int64 and scores (Q, k) float32, best first; equal scores by index.
    """
    scores = Scores(gallery, len(queries) <= _FEW)
    hidden = np.empty(0, np.int64) if left_out is None else np.flatnonzero(left_out)
    size, parts = _tiles(len(queries), len(gallery), scores.in_place)
    ids = np.empty((len(queries), k), np.int64)
    best = np.empty((len(queries), k), np.float32)
    more = k + (own is not None)

    def within(asked: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        found = scores(asked, part)
        low, high = np.searchsorted(hidden, [part.start, part.stop])
        if low < high:
            found = found if found.flags.writeable else found.copy()
            found[:, hidden[low:high] - part.start] = -np.inf
        columns, values = top(found, min(more, found.shape[1]))
        return columns + part.start, values

    def task(block: np.ndarray) -> None:
        columns, values = _best([within(queries[block], part) for part in parts], more)
        if own is not None:  # where ties pushed the query's own item out of the list, the last one goes
            others = columns != own[block][:, None]
            others[others.all(axis=1), -1] = False
            columns, values = columns[others].reshape(-1, k), values[others].reshape(-1, k)
        ids[block], best[block] = columns, values

    in_blocks(len(queries), size, task, "Searching", progress)
    return ids, best


def _tiles(queries: int, items: int, in_place: bool) -> tuple[int, list[slice]]:
    """Return how many queries make a block, and the parts of the gallery that a block is compared with in turn.

    A gallery that is read where it lies, from disk perhaps, is read once for each block of queries. Parts let a block
    be large, however large the gallery is.
    """
    if not in_place:
        return block_size(items), [slice(0, items)]
    most = _SCORES_BYTES // (4 * workers())  # scores of a block
    size = min(_IN_PLACE, queries)
    if size * items > most:  # too many for one block: then all cores have something to do
        size = min(_IN_PLACE, -(-queries // workers()))
    width = max(1, most // size)
    bounds = np.linspace(0, items, -(-items // width) + 1).astype(int).tolist()
    return size, [slice(start, end) for start, end in itertools.pairwise(bounds)]


def _best(found: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of what several parts of a gallery hold, best first; equal scores by column."""
    if len(found) == 1:
        return found[0]
    columns, values = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
    order = np.lexsort((columns, -values), axis=1)[:, :k]
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def top(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and values of the k largest scores of each row, best first; equal scores by column.

    The columns are dealt into groups, and only the k groups with the largest maxima are looked into: the k best items
    are in them, and a running maximum over groups is far cheaper than a selection over all columns.
    """
    rows, items = scores.shape
    size = 64
    groups = items // size
    candidates, values, maxima = None, scores, scores[:, :0]
    if groups >= 4 * k:
        maxima = scores[:, : groups * size].reshape(rows, size, groups).max(axis=1)
        chosen = _largest(maxima, k)
        inside = (chosen[:, None, :] + (np.arange(size) * groups)[:, None]).reshape(rows, -1)
        rest = np.broadcast_to(np.arange(groups * size, items), (rows, items - groups * size))
        candidates = np.concatenate([inside, rest], axis=1)
        values = np.take_along_axis(scores, candidates, axis=1)
    kept = _largest(values, k)
    last = np.take_along_axis(values, kept, axis=1).min(axis=1)
    # Where more than k items, or groups, reach the last score that was taken, it was chance which of them were taken.
    reaching = [(found >= last[:, None]).sum(axis=1) for found in (values, maxima)]
    columns = kept if candidates is None else np.take_along_axis(candidates, kept, axis=1)
    values = np.take_along_axis(values, kept, axis=1)
    for row in np.flatnonzero(np.maximum(*reaching) > k):
        reach = np.flatnonzero(scores[row] >= last[row])
        columns[row] = reach[np.argsort(-scores[row, reach], kind="stable")[:k]]
        values[row] = scores[row, columns[row]]
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return columns (b, k) of the k largest values of each row, in any order."""
    rows, count = values.shape
    if k == count:
        return np.tile(np.arange(k), (rows, 1))
    return np.argpartition(values, count - k, axis=1)[:, count - k :].copy()

"""Dynamic batching: requests that wait together run together."""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

PATIENCE = 0.005  # seconds without a new request after which a free worker waits no longer for company
# oneDNN keeps a prepared kernel of every layer for each batch size it has met, in each of its threads. With a few
# sizes only, the memory of a server stops growing.
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


class Overloaded(Exception):
    """More rows are waiting than the server takes."""


@dataclasses.dataclass(eq=False)
class _Request:
    inputs: dict[str, np.ndarray]
    rows: int
    done: asyncio.Future


class Batcher:
    """Joins the requests for one function into batches.

    The crowd, which is the most rows in the house since the last batch but one started, is shared equally among the
    workers: one of n takes 1/n of it, cut to one of a few `SIZES`, and a free one waits for that many rows for as
    long as requests keep coming, that is, until 5 ms pass without one. So a single client never waits for company, and
    of a crowd one half is computed while the other is read and answered. Without this, a worker that becomes free a
    moment too early runs a few rows at the price of many.

    Args:
        run: `inputs → outputs`, dictionaries of arrays whose first axis is the batch.
        pool: Threads that run it.
        workers: Batches at a time. Default 2.
        most: Rows in a batch. A larger request is cut, so that none needs more memory than a batch. Default 64.
        waiting: Rows that may wait; more are refused. Default 2048.
        observe: Called with the rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[dict], dict],
        pool: ThreadPoolExecutor,
        *,
        workers: int = 2,
        most: int = 64,
        waiting: int = 2048,
        observe: Callable[[int], None] = lambda rows: None,
    ):
        self._run, self._pool, self._most, self._limit, self._observe = run, pool, most, waiting, observe
        self._queue: deque[_Request] = deque()
        self._workers = self._idle = workers
        self._running = self._peak = self._last_peak = 0
        self._patience: asyncio.TimerHandle | None = None
        self._latest = 0.0
        self.waiting = 0

    async def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for this request's rows.

        Raises:
            Overloaded: If too many rows wait already.
        """
        rows = len(next(iter(inputs.values())))
        if self.waiting and self.waiting + rows > self._limit:
            raise Overloaded
        starts = range(0, rows, self._most) if rows > self._most else (0,)
        parts = [self._enqueue({name: value[at : at + self._most] for name, value in inputs.items()}) for at in starts]
        self._start()
        if len(parts) == 1:
            return await parts[0].done
        found = await asyncio.gather(*(part.done for part in parts))
        return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}

    def _enqueue(self, inputs: dict[str, np.ndarray]) -> _Request:
        rows, loop = len(next(iter(inputs.values()))), asyncio.get_running_loop()
        request = _Request(inputs, rows, loop.create_future())
        self._queue.append(request)
        self._latest = loop.time()
        self.waiting += rows
        self._peak = max(self._peak, self.waiting + self._running)
        return request

    def _start(self, patient: bool = True) -> None:
        """Gives batches to free workers, as far as it is time to."""
        while self._idle and self._queue:
            size = self._size()
            if patient and self.waiting < size:
                if self._patience is None:
                    self._wait(PATIENCE)
                return
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            batch = self._take(size)
            if batch:
                rows = sum(request.rows for request in batch)
                self._idle -= 1
                self._running += rows
                self._last_peak, self._peak = self._peak, self.waiting + self._running
                asyncio.ensure_future(self._work(batch, rows)).add_done_callback(self._free)

    def _size(self) -> int:
        """The largest size within a worker's share of the crowd."""
        share = min(-(-max(self._peak, self._last_peak) // self._workers), self._most)
        return max(size for size in SIZES if size <= share or size == 1)

    def _wait(self, seconds: float) -> None:
        self._patience = asyncio.get_running_loop().call_later(seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        left = self._latest + PATIENCE - asyncio.get_running_loop().time()
        if left > 0:
            self._wait(left)
            return
        self._patience = None
        self._start(patient=False)

    def _free(self, _) -> None:
        self._idle += 1
        self._start()

    def _take(self, most: int) -> list[_Request]:
        """The longest run of waiting requests that fit together; those whose client gave up are dropped."""
        batch, rows = [], 0
        while self._queue:
            request = self._queue[0]
            gone = request.done.done()
            if not gone and batch and (rows + request.rows > most or not _fit(batch[0], request)):
                break
            self._queue.popleft()
            self.waiting -= request.rows
            if not gone:
                batch.append(request)
                rows += request.rows
        return batch

    async def _work(self, batch: list[_Request], rows: int) -> None:
        try:
            joined = {name: _joined([request.inputs[name] for request in batch]) for name in batch[0].inputs}
            self._observe(rows)
            outputs = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, joined)
        except Exception as error:
            for request in batch:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        finally:
            # Before anyone is answered: who asks again at once must not count twice.
            self._running -= rows
        start = 0
        for request in batch:
            part = {name: value[start : start + request.rows] for name, value in outputs.items()}
            start += request.rows
            if not request.done.done():
                request.done.set_result(part)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """The rows of all parts, filled up to the next of the sizes; the outputs of the filling are never looked at."""
    rows = sum(map(len, parts))
    size = next((size for size in SIZES if size >= rows), rows) if rows else 0
    text = parts[0].dtype == object
    filling = np.full((size - rows, *parts[0].shape[1:]), b"" if text else 0, parts[0].dtype)
    return np.concatenate([*parts, filling])


def _fit(one: _Request, other: _Request) -> bool:
    return all(value.shape[1:] == other.inputs[name].shape[1:] for name, value in one.inputs.items())

"""Dynamic batching: requests that wait together run together."""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

# oneDNN keeps a prepared kernel of every layer for each batch size it has met, in each of its threads. With a few
# sizes only, the memory of a server stops growing.
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
PAUSE = 0.002  # seconds in which those who were just answered ask again

Arrays = dict[str, np.ndarray]


class Overloaded(Exception):
    """More rows are waiting than the server takes."""


@dataclasses.dataclass(eq=False)
class _Request:
    inputs: Arrays
    rows: int
    done: asyncio.Future[Any]


class Batcher:
    """Joins the requests for one function into batches.

    A free worker takes what waits. While another one is busy, it gives new requests a moment to come first: a batch of
    many rows costs little more than one of few. A single client never waits.

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
        run: Callable[[Arrays], Arrays],
        pool: ThreadPoolExecutor,
        *,
        workers: int = 2,
        most: int = 64,
        waiting: int = 2048,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._run, self._pool, self._most, self._limit, self._observe = run, pool, most, waiting, observe
        self._queue: deque[_Request] = deque()
        self._workers = self._idle = workers
        self._tasks: set[asyncio.Task[Any]] = set()
        self.waiting = 0

    async def __call__(self, inputs: Arrays) -> Arrays:
        """Return the outputs for this request's rows.

        Raises:
            Overloaded: If too many rows wait already.
        """
        rows = len(next(iter(inputs.values())))
        if self.waiting and self.waiting + rows > self._limit:
            raise Overloaded
        starts = range(0, rows, self._most) if rows > self._most else (0,)
        parts = [self._enqueue({name: value[at : at + self._most] for name, value in inputs.items()}) for at in starts]
        if len(parts) == 1:
            result: Arrays = await parts[0]
            return result
        found = await asyncio.gather(*parts)
        return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}

    def _enqueue(self, inputs: Arrays) -> asyncio.Future[Any]:
        request = _Request(inputs, len(next(iter(inputs.values()))), asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self.waiting += request.rows
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)  # the loop alone would not keep it
            task.add_done_callback(self._tasks.discard)
        return request.done

    async def _work(self) -> None:
        """Run batches, as a worker, as long as requests wait."""
        while self._queue:
            if self._idle < self._workers - 1 and self.waiting < self._most:
                await asyncio.sleep(PAUSE)
            if batch := self._take():
                await self._answer(batch)
        self._idle += 1

    def _take(self) -> list[_Request]:
        """Return waiting requests that fit together, as many as fill one of the sizes; who gave up is dropped."""
        batch: list[_Request] = []
        rows, most = 0, max(size for size in SIZES if size <= max(1, min(self.waiting, self._most)))
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

    async def _answer(self, batch: list[_Request]) -> None:
        try:
            joined = {name: _joined([request.inputs[name] for request in batch]) for name in batch[0].inputs}
            self._observe(sum(request.rows for request in batch))
            outputs = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, joined)
        except Exception as error:  # whatever it is, those who wait are told
            for request in batch:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        start = 0
        for request in batch:
            part = {name: value[start : start + request.rows] for name, value in outputs.items()}
            start += request.rows
            if not request.done.done():
                request.done.set_result(part)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return the rows of all parts, filled up to the next of the sizes; outputs of the filling are never read."""
    rows = sum(map(len, parts))
    size = next((size for size in SIZES if size >= rows), rows) if rows else 0
    text = parts[0].dtype == object
    filling = np.full((size - rows, *parts[0].shape[1:]), b"" if text else 0, parts[0].dtype)
    return np.concatenate([*parts, filling])


def _fit(one: _Request, other: _Request) -> bool:
    return all(value.shape[1:] == other.inputs[name].shape[1:] for name, value in one.inputs.items())

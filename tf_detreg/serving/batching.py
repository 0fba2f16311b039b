"""Dynamic batching: requests that wait together run together."""

import asyncio
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Overloaded(Exception):
    """More rows are waiting than the server takes."""


@dataclasses.dataclass
class _Request:
    inputs: dict[str, np.ndarray]
    rows: int
    done: asyncio.Future


class Batcher:
    """Joins the requests for one function into batches.

    A batch starts as soon as a worker is free and takes what waits by then, so that a single request never waits for
    company and a crowd is served in large batches.

    Args:
        run: `inputs → outputs`, dictionaries of arrays whose first axis is the batch.
        pool: Threads that run it.
        workers: Batches at a time. Default 2: while one is computed, the next one is decoded.
        most: Rows in a batch. A larger request runs alone. Default 64.
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
        self._queue: list[_Request] = []
        self._idle = workers
        self.waiting = 0

    async def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for this request's rows.

        Raises:
            Overloaded: If too many rows wait already.
        """
        rows = len(next(iter(inputs.values())))
        if self.waiting and self.waiting + rows > self._limit:
            raise Overloaded
        request = _Request(inputs, rows, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self.waiting += rows
        self._start()
        return await request.done

    def _start(self) -> None:
        while self._idle and self._queue:
            batch = self._take()
            if batch:
                self._idle -= 1
                task = asyncio.ensure_future(self._work(batch))
                task.add_done_callback(lambda task: self._free())

    def _free(self) -> None:
        self._idle += 1
        self._start()

    def _take(self) -> list[_Request]:
        """The longest run of waiting requests that fit together; those whose client gave up are dropped."""
        batch, rows = [], 0
        while self._queue:
            request = self._queue[0]
            gone = request.done.done()
            if not gone and batch and (rows + request.rows > self._most or not _fit(batch[0], request)):
                break
            self._queue.pop(0)
            self.waiting -= request.rows
            if not gone:
                batch.append(request)
                rows += request.rows
        return batch

    async def _work(self, batch: list[_Request]) -> None:
        try:
            joined = {name: np.concatenate([request.inputs[name] for request in batch]) for name in batch[0].inputs}
            self._observe(sum(request.rows for request in batch))
            outputs = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, joined)
        except Exception as error:
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


def _fit(one: _Request, other: _Request) -> bool:
    return all(value.shape[1:] == other.inputs[name].shape[1:] for name, value in one.inputs.items())

"""The model behind both protocols: which version answers, in batches, with limits."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tf_detreg.images.formats import MAX_PIXELS
from tf_detreg.images.reference import declared_pixels
from tf_detreg.serving.batching import Arrays, Batcher, Overloaded
from tf_detreg.serving.budget import Budget
from tf_detreg.serving.metrics import Metrics
from tf_detreg.serving.model import ModelDirectory, Version
from tf_detreg.serving.problem import Problem
from tf_detreg.serving.settings import Settings

SMALL = 100_000  # bytes that are read or written in less time than another thread needs to take them over


class Predictor:
    """Runs a model's signatures on arrays; requests that wait together run together.

    Args:
        model: What to serve.
        settings: Limits.
        metrics: What is counted.
    """

    def __init__(self, model: ModelDirectory, settings: Settings, metrics: Metrics) -> None:
        self.model, self.settings, self.metrics = model, settings, metrics
        self.bodies, self._decoding = Budget(settings.max_bodies), Budget(settings.max_pixels)
        self._batchers: dict[tuple[int, str], Batcher] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run threads for the model, and others for JSON and search, so that neither starves the other."""
        self._model_threads = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="model")
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="work")
        self._batchers.clear()
        self.metrics.version.set(self.model.current.number)
        watcher = asyncio.create_task(self._watch()) if self.settings.poll else None
        try:
            yield
        finally:
            if watcher is not None:
                watcher.cancel()
            self._model_threads.shutdown(wait=False, cancel_futures=True)
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function that would hold up other requests here."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def by_size(self, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function here, or in a thread where its `size` bytes would hold up the other requests."""
        return function(*arguments) if size < SMALL else await self.in_thread(function, *arguments)

    def version(self, name: str, number: int | None = None) -> Version:
        """Return the version that answers for a model.

        Args:
            name: The model.
            number: A version of it. Default: the one that serves, for which some clients write 0.

        Raises:
            Problem: 404, if it is not served here.
        """
        version = self.model.current
        if name != self.model.name or number not in (None, 0, version.number):
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise Problem(404, f"Servable not found for request: {asked}")
        return version

    async def run(self, version: Version, signature: str, inputs: Arrays) -> Arrays:
        """Return the outputs of a signature.

        Args:
            version: From `version`.
            signature: The name of a signature that the version has.
            inputs: An array for each of its inputs.

        Raises:
            Problem: 413, if these are too many rows or pixels; 503, if too many wait already.
        """
        rows = len(next(iter(inputs.values())))
        if rows > self.settings.waiting_rows:
            raise Problem(413, f"A request has at most {self.settings.waiting_rows} rows; received {rows}.")
        key = (version.number, signature)
        if key not in self._batchers:
            self._batchers[key] = Batcher(
                lambda batch: version.run(signature, batch),
                self._model_threads,
                workers=self.settings.workers,
                most=self.settings.batch_rows,
                waiting=self.settings.waiting_rows,
                observe=self.metrics.batch_rows.observe,
            )
        try:
            async with self._decoding.waiting(await self._pixels(version, inputs)):
                outputs = await self._batchers[key](inputs)
        except Overloaded:
            raise Problem(503, "The server is busy.") from None
        if "valid" in outputs:
            self.metrics.invalid.inc(outputs["valid"].size - np.count_nonzero(outputs["valid"]))
        return outputs

    async def _pixels(self, version: Version, inputs: Arrays) -> int:
        """Return how many pixels the encoded images among the inputs are going to be; their bytes do not tell.

        Raises:
            Problem: 413, if that is too much for one request.
        """
        contents = [content for value in inputs.values() if value.dtype == object for content in value.flat]
        most = version.facts.get("max_pixels", MAX_PIXELS)
        size = sum(map(len, contents))
        found: int = await self.by_size(size, lambda: sum(declared_pixels(content, most) for content in contents))
        if found > self.settings.max_pixels:
            millions = self.settings.max_pixels / 1e6
            raise Problem(
                413, f"The images of a request have at most {millions:g} megapixels; received {found / 1e6:,.1f}."
            )
        return found

    def waiting(self) -> int:
        """Return rows that wait for the model."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll)
            if await self.in_thread(self.model.refresh):
                self._batchers.clear()
                self.metrics.version.set(self.model.current.number)
                # The graphs of the last version are in cycles, which Python would look for much later.
                await self.in_thread(gc.collect)

"""Requests that wait together run together, in a few sizes."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tf_detreg.serving import batching
from tf_detreg.serving.batching import SIZES, Batcher, Overloaded


class Model:
    """Doubles its rows, remembers how many came, and takes its time."""

    def __init__(self, seconds=0.0):
        self.seconds, self.sizes, self.lock = seconds, [], threading.Lock()

    def __call__(self, inputs):
        (rows,) = inputs.values()
        with self.lock:
            self.sizes.append(len(rows))
        time.sleep(self.seconds)
        return {"doubled": rows * 2}


def row(number, count=1):
    return {"rows": np.full((count, 2), number, np.float32)}


def run(model, ask, **settings):
    async def main():
        with ThreadPoolExecutor(2) as pool:
            return await ask(Batcher(model, pool, **settings))

    return asyncio.run(main())


async def many_clients(batcher, clients=32, turns=6):
    """Clients that ask again as soon as they are answered."""

    async def client(number):
        for _ in range(turns):
            found = await batcher(row(number))
            np.testing.assert_array_equal(found["doubled"], [[2 * number, 2 * number]])

    await asyncio.gather(*(client(number) for number in range(clients)))


def test_many_clients_run_in_large_batches():
    model = Model(seconds=0.03)
    run(model, many_clients)
    assert len(model.sizes) <= 30  # of 192 requests


def test_a_single_client_does_not_wait(monkeypatch):
    monkeypatch.setattr(batching, "PAUSE", 3600)

    async def ask(batcher):
        async with asyncio.timeout(60):
            for number in range(20):
                await batcher(row(number))

    model = Model()
    run(model, ask)
    assert model.sizes == [1] * 20


def test_a_free_worker_waits_a_moment_while_the_other_is_busy(monkeypatch):
    monkeypatch.setattr(batching, "PAUSE", 0.2)
    release, model = threading.Event(), Model()

    def hold(inputs):
        found = model(inputs)
        if len(inputs["rows"]) == 16:
            release.wait(60)
        return found

    async def ask(batcher):
        long = asyncio.ensure_future(batcher(row(0, count=16)))
        await asyncio.sleep(0.01)
        short = []
        for number in range(4):
            short.append(asyncio.ensure_future(batcher(row(number))))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            await asyncio.gather(*short)
        assert not long.done()
        release.set()
        await long

    run(hold, ask)
    assert model.sizes == [16, 4]


def test_what_waits_fills_a_size_and_the_rest_runs_next():
    """Seventeen single rows as 16 and 1: filled up to 24, they would cost half as much again."""

    async def ask(batcher):
        await asyncio.gather(*(batcher(row(number)) for number in range(17)))

    model = Model()
    run(model, ask, workers=1)
    assert model.sizes == [16, 1]


@pytest.mark.parametrize("count", [0, 1, 5, 64, 65, 1000])
def test_a_request_of_any_number_of_rows_runs_in_the_known_sizes(count):
    model = Model()
    found = run(model, lambda batcher: batcher({"rows": np.arange(count, dtype=np.float32)}), waiting=2048)
    np.testing.assert_array_equal(found["doubled"], 2 * np.arange(count))
    assert set(model.sizes) <= {0, *SIZES}
    assert max(model.sizes) <= 64


def test_texts_are_filled_up_with_empty_ones():
    seen = []

    def read(inputs):
        seen.extend(inputs["contents"].tolist())
        return {"length": np.array([len(text) for text in inputs["contents"]])}

    texts = np.empty(3, object)
    texts[:] = [b"a", b"bb", b"ccc"]
    found = run(read, lambda batcher: batcher({"contents": texts}))
    assert found["length"].tolist() == [1, 2, 3]
    assert seen == [b"a", b"bb", b"ccc", b""]


def test_rows_of_other_shapes_run_apart():
    async def ask(batcher):
        wide = {"rows": np.ones((1, 3), np.float32)}
        return await asyncio.gather(batcher(row(1)), batcher(wide), batcher(row(2)))

    found = run(Model(), ask, workers=1)
    assert [answer["doubled"].shape for answer in found] == [(1, 2), (1, 3), (1, 2)]


def test_too_many_waiting_rows_are_refused_and_who_left_is_not_computed():
    async def ask(batcher):
        first = asyncio.ensure_future(batcher(row(0)))
        await asyncio.sleep(0)
        gone = asyncio.ensure_future(batcher(row(1)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher(row(2, count=4))
        gone.cancel()
        await first
        await batcher(row(3))

    model = Model(seconds=0.02)
    run(model, ask, workers=1, waiting=4)
    assert model.sizes == [1, 1]


def test_a_failure_reaches_everyone_in_the_batch():
    def fail(inputs):
        raise RuntimeError("out of order")

    async def ask(batcher):
        return await asyncio.gather(*(batcher(row(n, count=100)) for n in range(3)), return_exceptions=True)

    assert [str(error) for error in run(fail, ask)] == ["out of order"] * 3

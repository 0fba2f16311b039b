"""What the server is asked for and how it keeps its limits, part by part: no model is loaded and nothing listens."""

import asyncio
import gzip
import io
import socket
import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `serve` is not installed: pip install -e '.[serve]'")

from tf_detreg import index
from tf_detreg.serving import bodies, predictor, search, server, writes
from tf_detreg.serving.batching import SIZES, Batcher, Overloaded
from tf_detreg.serving.budget import Budget
from tf_detreg.serving.gallery import FULL_SIDE, Gallery
from tf_detreg.serving.metrics import Metrics
from tf_detreg.serving.model import WARM_UP_ROWS, Version
from tf_detreg.serving.predictor import Predictor
from tf_detreg.serving.problem import BadRequest, Problem
from tf_detreg.serving.settings import Settings


def test_the_limits_unless_others_are_given():
    limits = {name: getattr(Settings(), name) for name in Settings.__dataclass_fields__}
    assert limits == {
        "max_body": 32_000_000,
        "max_bodies": 256_000_000,
        "max_pixels": 256_000_000,
        "timeout": 30.0,
        "batch_rows": 64,
        "waiting_rows": 2048,
        "workers": 2,
        "poll": 5.0,
        "max_header": 16_384,
        "max_fields": 100,
        "header_timeout": 10.0,
        "keep_alive": 15.0,
        "max_connections": 512,
        "allowed_hosts": ("localhost", "127.0.0.1", "[::1]"),
        "cors_origins": (),
        "write_token": None,
    }
    assert Settings(poll=0).poll == 0 and Settings(max_body=9, max_bodies=9).max_bodies == 9
    assert Settings(write_token="x" * 16).write_token == "x" * 16
    for token in ("x" * 15, "x" * 1001, "ä" * 16):
        with pytest.raises(ValueError, match="at least 16 visible ASCII characters"):
            Settings(write_token=token)


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_where_grpc_is_answered(taken, monkeypatch):
    pytest.importorskip("tensorflow_serving")
    with pytest.raises(OSError, match="choose another `grpc_port`"):
        server._grpc_address("127.0.0.1", taken)
    assert server._grpc_address("127.0.0.1", 0) is None
    monkeypatch.setattr(server, "GRPC_PORT", taken)
    assert server._grpc_address("127.0.0.1", None) is None
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
    assert server._grpc_address("127.0.0.1", free) == f"127.0.0.1:{free}"
    monkeypatch.setattr(server, "GRPC_PORT", free)
    assert server._grpc_address("127.0.0.1", None) == f"127.0.0.1:{free}"


def test_an_address_of_the_new_kind_stands_in_brackets(monkeypatch):
    pytest.importorskip("tensorflow_serving")
    asked = []

    class Opened:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            asked.append("closed")

    monkeypatch.setattr(server.socket, "create_server", lambda place, family: asked.append((place, family)) or Opened())
    assert server._grpc_address("::1", 7) == "[::1]:7"
    assert asked == [(("::1", 7), socket.AF_INET6), "closed"]
    assert [server._bracketed(host) for host in ("::1", "[::1]", "a.test")] == ["[::1]", "[::1]", "a.test"]


def test_this_machines_name_is_answered_where_others_can_reach_it(monkeypatch):
    monkeypatch.setattr(server.socket, "gethostname", lambda: "here")
    monkeypatch.setattr(server.socket, "getfqdn", lambda: "here.test")
    local = ["localhost", "127.0.0.1", "[::1]"]
    assert server.host_names("::1") == server.host_names("localhost") == local
    assert server.host_names("127.0.0.2") == [*local, "127.0.0.2"]
    assert server.host_names("0.0.0.0") == [*local, "0.0.0.0", "here", "here.test"]
    assert server.host_names("shop.test") == [*local, "shop.test", "here", "here.test"]


def test_the_http_server_says_little_and_believes_no_proxy():
    config = server.http_config(None, Settings(max_header=999), host="127.0.0.1", port=5)
    assert (config.host, config.port, config.ws, config.loop) == ("127.0.0.1", 5, "none", "asyncio")
    assert (config.proxy_headers, config.server_header, config.access_log) == (False, False, False)
    assert config.h11_max_incomplete_event_size == 999
    assert config.http.keywords["settings"].max_header == 999


def _in_time(work):
    """Run what could wait for ever if a limit or a watch were lost."""
    return asyncio.run(asyncio.wait_for(work, 20))


class _Request:
    """A request in parts."""

    def __init__(self, parts=(), headers=None, query=None, path=None):
        self._parts, self.headers = list(parts), headers or {}
        self.query_params, self.path_params = query or {}, path or {}

    async def receive(self):
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}


def _held(request, limit, budget):
    async def read():
        async with bodies.body_of(request, limit, budget) as body:
            return body, budget.held

    return _in_time(read())


def test_what_a_body_holds_is_counted_also_when_it_is_unpacked():
    budget = Budget(1000)
    assert _held(_Request([b"abc", b"", b"de"]), 5, budget) == (b"abcde", 5)
    packed = gzip.compress(b"a" * 300)
    body, held = _held(_Request([packed], {"content-encoding": " GZIP "}), 300, budget)
    assert (body, held) == (b"a" * 300, len(packed) + 300)
    assert budget.held == 0
    with pytest.raises(Problem, match="larger than 4 bytes"):
        _held(_Request([b"abc", b"de"]), 4, budget)
    with pytest.raises(Problem, match="larger than 4 bytes"):
        _held(_Request([b""], {"content-length": "5"}), 4, budget)
    with pytest.raises(Problem, match="The server is busy") as busy:
        _held(_Request([b"abc", b"de"]), 9, Budget(4))
    assert busy.value.code == 503 and budget.held == 0
    with pytest.raises(BadRequest, match="must be one stream, and whole"):
        bodies.gunzip(packed + b"more", 1000)
    with pytest.raises(BadRequest, match="must be one stream, and whole"):
        bodies.gunzip(packed[:-1], 1000)


def test_what_waits_for_a_budget_goes_on_in_turn_and_gives_back():
    async def run():
        budget, order = Budget(10), []

        async def hold(name, amount):
            async with budget.waiting(amount):
                order.append(name)
                await asyncio.sleep(0)
                assert budget.held <= 10

        async with budget.waiting(8):
            tasks = [asyncio.create_task(hold(name, amount)) for name, amount in (("a", 10), ("b", 1), ("c", 2))]
            await asyncio.sleep(0.01)
            assert not order and budget.held == 8
        await asyncio.gather(*tasks)
        return order, budget.held

    assert _in_time(run()) == (["a", "b", "c"], 0)


def test_rows_that_wait_may_be_as_many_as_the_limit():
    async def run():
        batcher = Batcher(lambda inputs: inputs, None, waiting=4)
        batcher.waiting = 3
        batcher._idle = 0
        first = asyncio.create_task(batcher({"x": np.zeros(1)}))
        await asyncio.sleep(0)
        assert batcher.waiting == 4
        with pytest.raises(Overloaded):
            await batcher({"x": np.zeros(1)})
        first.cancel()
        # A request that is larger than the limit is taken where none waits.
        batcher.waiting = 0
        large = asyncio.create_task(batcher({"x": np.zeros(5)}))
        await asyncio.sleep(0)
        assert batcher.waiting == 5
        large.cancel()

    _in_time(run())


class _Model:
    """One version of a model that doubles its input."""

    name = "bird"

    def __init__(self):
        self.current = types.SimpleNamespace(number=3, facts={"max_pixels": 500}, run=self.run)
        self.looked = 0

    def run(self, signature, inputs):
        (value,) = inputs.values()
        return {"y": np.zeros(len(value)), "valid": np.arange(len(value)) % 2 == 0}

    def refresh(self):
        self.looked += 1
        return True


def test_the_predictor_gives_its_limits_to_the_batches_and_counts(monkeypatch):
    asked = []

    def batcher(run, pool, **options):
        asked.append(options)
        return Batcher(run, pool, **options)

    monkeypatch.setattr(predictor, "Batcher", batcher)
    metrics, model = Metrics(), _Model()
    served = Predictor(model, Settings(workers=3, batch_rows=7, waiting_rows=9, poll=0), metrics)

    async def run():
        async with served.running():
            pools = served._model_threads, served._threads
            assert pools[0]._max_workers == 3
            await served.run(model.current, "serve", {"x": np.zeros(5)})
            await served.run(model.current, "serve", {"x": np.zeros(4)})
            with pytest.raises(Problem, match="at most 9 rows; received 10"):
                await served.run(model.current, "serve", {"x": np.zeros(10)})
            served._batchers[(3, "serve")].waiting = 9
            assert served.waiting() == 9
            with pytest.raises(Problem, match="The server is busy") as busy:
                await served.run(model.current, "serve", {"x": np.zeros(1)})
            assert busy.value.code == 503
        return pools

    pools = _in_time(run())
    assert all(pool._shutdown for pool in pools)
    ((options),) = asked
    assert {name: options[name] for name in ("workers", "most", "waiting")} == {"workers": 3, "most": 7, "waiting": 9}
    text = metrics.text().decode()
    for line in ("batch_rows_count 2.0", "batch_rows_sum 9.0", "invalid_images_total 4.0", "model_version 3.0"):
        assert f"tf_detreg_{line}" in text


def test_the_watch_looks_as_often_as_it_is_told_and_ends_with_the_server(monkeypatch):
    model, metrics = _Model(), Metrics()
    served = Predictor(model, Settings(poll=0.001), metrics)

    async def run():
        async with served.running():
            served._batchers[(3, "serve")] = None
            model.current.number = 4
            while model.looked < 2:
                await asyncio.sleep(0.001)
            assert not served._batchers
            (watch,) = [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_watch"]
        looked = model.looked
        await asyncio.sleep(0.02)
        assert watch.cancelled() and model.looked <= looked + 1

    _in_time(run())
    assert "tf_detreg_model_version 4.0" in metrics.text().decode()


def test_large_work_is_done_by_a_thread(monkeypatch):
    served = Predictor(_Model(), Settings(), Metrics())
    moved = []

    async def in_thread(function, *given):
        moved.append(given)
        return function(*given)

    monkeypatch.setattr(served, "in_thread", in_thread)

    async def run():
        return [await served.by_size(size, max, size, 1) for size in (99_999, 100_000)]

    assert _in_time(run()) == [99_999, 100_000] and moved == [(100_000, 1)]


def test_the_pixels_of_a_request_are_those_that_its_images_declare(monkeypatch):
    served = Predictor(_Model(), Settings(max_pixels=100), Metrics())
    asked = []
    monkeypatch.setattr(predictor, "declared_pixels", lambda content, most: asked.append(most) or int(content))

    def pixels(version, *contents):
        inputs = {"image_bytes": np.array(contents, object), "x": np.zeros(3)}
        return _in_time(served._pixels(version, inputs))

    assert pixels(served.model.current, b"40", b"60") == 100 and asked == [500, 500]
    with pytest.raises(Problem, match=r"at most 0\.0001 megapixels") as large:
        pixels(types.SimpleNamespace(facts={}), b"40", b"61")
    assert large.value.code == 413 and asked[2] == predictor.MAX_PIXELS


def test_a_version_is_run_at_all_sizes_before_it_serves():
    ran = []
    version = Version.__new__(Version)
    spec = types.SimpleNamespace(
        shape=types.SimpleNamespace(as_list=lambda: [None, 2]),
        dtype=types.SimpleNamespace(name="float32", as_numpy_dtype=np.float32),
    )
    version.signatures = {"a": None, "b": None}
    version.inputs = lambda signature: {"x": spec}
    version.run = lambda signature, inputs: ran.append((signature, inputs["x"].shape))
    version._warm_up(b"picture")
    sizes = {size for size in SIZES if size <= WARM_UP_ROWS}
    assert sizes == {1, 2, 4, 8, 12, 16, 24, 32}
    assert ran[0] == ("a", (1, 2))
    for signature in "ab":
        rows = [shape[0] for name, shape in ran if name == signature]
        assert set(rows) == sizes and rows.count(1) == 2


def test_numbers_of_a_search():
    assert search._count(_Request()) == 12
    for text in ("1", "100"):
        assert search._count(_Request(query={"k": text})) == int(text)
    for text in ("0", "101", "-1", "1.0", ""):
        with pytest.raises(BadRequest, match="from 1 to 100"):
            search._count(_Request(query={"k": text}))


def test_time_is_told_in_milliseconds(monkeypatch):
    monkeypatch.setattr(search.time, "perf_counter", lambda: 10.01234)
    assert search._milliseconds(10.0) == 12.3


def test_what_cannot_be_written():
    assert writes._id(_Request(path={"id": "x" * 1000})) == "x" * 1000
    for id in ("", "x" * 1001, "a\0b"):
        with pytest.raises(BadRequest, match="1 to 1000 characters"):
            writes._id(_Request(path={"id": id}))
    assert writes._metadata('{"label": "mug"}') == {"label": "mug"}
    for text in ('{"path": "x"}', '{"run": "x"}'):
        with pytest.raises(BadRequest, match="they name files of the server"):
            writes._metadata(text)


def test_an_item_is_put_with_the_mark_of_the_model_that_serves():
    asked = []
    settings = Settings(write_token="t" * 16)
    model = types.SimpleNamespace(current=types.SimpleNamespace(facts={"fingerprint": "mark"}))

    async def in_thread(function, *given):
        return function(*given)

    async def embedded(content):
        return np.array([[0.6, 0.8]])

    gallery = types.SimpleNamespace(put=lambda *given: asked.append(given) or False, number=lambda id: 7)
    served = types.SimpleNamespace(settings=settings, bodies=Budget(99), model=model, in_thread=in_thread)
    writer = writes.Writes(served, lambda: gallery, embedded)
    headers = {"authorization": f"bearer {'t' * 16}"}
    query = {"metadata": '{"label": "mug"}'}
    answer = _in_time(writer.put(_Request([b"picture"], headers, query, {"id": "a"})))
    assert answer.status_code == 201 and answer.body == b'{"id":"a","item":7,"replaced":false}'
    ((id, embedding, metadata, mark),) = asked
    assert (id, embedding.tolist(), metadata, mark) == ("a", [0.6, 0.8], {"label": "mug"}, "mark")
    for wrong in (f"Basic {'t' * 16}", f"Bearer {'t' * 15}", ""):
        with pytest.raises(Problem) as refused:
            _in_time(writer.put(_Request([b"picture"], {"authorization": wrong}, query, {"id": "a"})))
        assert refused.value.code == 401 and len(asked) == 1


@pytest.fixture(scope="module")
def shown():
    """A gallery of ten pictures, of which the fifth cannot be read."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 500, 400, 3), dtype=np.uint8)
    pictures = [*pixels]
    pictures[4] = "not/there.png"
    vectors = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
    return Gallery(index.Index(vectors, [f"i{at}" for at in range(10)], [{"label": at} for at in range(10)]), pictures)


def test_a_gallery_shows_samples_from_all_over_it(shown):
    assert [item["item"] for item in shown.samples(3)] == [0, 3, 7]
    assert [item["item"] for item in shown.samples(9)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [item["item"] for item in shown.samples(20)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_gallery_has_small_pictures_and_large_ones(shown):
    def size(content):
        return Image.open(io.BytesIO(content)).size

    assert FULL_SIDE == 1600 and shown._side == 240
    assert size(shown.thumbnail(0)) == (192, 240) and shown.thumbnail(4) is None
    # Larger than a thumbnail, and enlarged no more than four hundred and eighty pixels allow.
    assert size(shown.picture(0)) == (400, 500)


def test_neighbors_are_as_many_as_asked_for_without_the_item(shown):
    found = shown.neighbors(2, 3)
    assert len(found) == 3 and 2 not in [match["item"] for match in found]
    assert shown.search(shown.index.vector("i2")[None], 1)[0]["score"] == 1.0
    assert len(shown.neighbors(2, 50)) == 9


def test_changes_are_taken_over_by_one_request_at_a_time(shown, monkeypatch):
    inside = []
    added = shown.index.added_since

    def noted(mark):
        inside.append(shown._lock.locked())
        return added(mark)

    monkeypatch.setattr(type(shown.index), "added_since", lambda self, mark: noted(mark))
    shown._take_over(0, shown.index.version)
    assert inside == [True] and not shown._lock.locked()

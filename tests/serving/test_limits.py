"""What a stranger may send: on the wire, as a name, as a number, as a compressed body and as a form."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import socket
import time
import types

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.serving.conftest import listening, png
from tf_detreg.serving import batching, protocol
from tf_detreg.serving.app import Settings, create_app
from tf_detreg.serving.budget import Budget
from tf_detreg.serving.server import host_names

PREDICT = "/v1/models/colours:predict"


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, base_url="http://127.0.0.1:8501") as client:
        yield client


@pytest.fixture
def connect(address):
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((host, int(port)), timeout=20))


def answer(connection):
    """Status and JSON of what comes until the server closes the connection."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(100_000):
            content += part
    head, _, body = content.partition(b"\r\n\r\n")
    assert b"application/json" in head, content[:300]
    return int(head.split()[1]), json.loads(body)["error"]


def ask_health(connection, host="127.0.0.1"):
    connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    found = b""
    while not found.endswith(b"}"):
        found += connection.recv(100_000)
    return found


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["unfinished", "complete"])
@pytest.mark.parametrize("where", ["field", "target", "many fields"])
def test_a_header_has_a_largest_size(connect, where, end):
    start = {"field": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", "target": b"GET /"}.get(
        where, b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    )
    connection = connect()
    piece = b"x: y\r\n" * 10_000 if where == "many fields" else b"x" * 60_000
    with contextlib.suppress(OSError):
        connection.sendall(start)
        for _ in range(100):
            connection.sendall(piece)
        connection.sendall(end)
    code, error = answer(connection)
    assert (code, "16384 bytes" in error) == (431, True)
    assert b"200 OK" in ask_health(connect())


def test_a_header_that_comes_in_one_piece_has_the_same_limit(connect):
    connection = connect()
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)
    assert answer(connection)[0] == 431


def test_an_unfinished_header_is_parsed_no_further_than_its_limit(connect, monkeypatch):
    """The parser before looked at all of it again with each piece: 80 MB kept everybody waiting for a minute."""
    from tf_detreg.serving.protocol import LimitedProtocol

    parsed, original = [], LimitedProtocol.data_received

    def count(self, data):
        if self._state != "closing":
            parsed.append(len(data))
        original(self, data)

    monkeypatch.setattr(LimitedProtocol, "data_received", count)
    connection = connect()
    with contextlib.suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000_000)
    assert answer(connection)[0] == 431
    assert sum(parsed) <= 2 * 2**18  # two reads of a socket at most


def test_what_is_no_http_is_refused_in_json(connect):
    connection = connect()
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert answer(connection)[0] == 400
    connection = connect()
    connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")  # without a Host
    assert answer(connection)[0] == 400


def test_half_open_connections_end(connect):
    silent, slow = connect(), connect()
    slow.sendall(b"GET /health HT")
    time.sleep(0.5)
    slow.sendall(b"TP/1.1\r\nHost:")  # more of it gives no more time
    assert answer(slow)[0] == 408
    assert silent.recv(1) == b""


def test_a_second_header_on_a_connection_has_its_time_too(connect):
    connection = connect()
    assert b"200 OK" in ask_health(connection)
    connection.sendall(b"GET /health HTTP/1.1\r\n")
    assert answer(connection)[0] == 408


def test_a_client_that_goes_on_sending_is_cut_off(connect):
    connection = connect()
    connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n".encode())
    assert b" 413 " in connection.recv(100_000)
    start = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < start + 30:
            connection.sendall(b"x" * 1000)
            time.sleep(0.05)


def test_unfinished_and_unread_requests_end(served, gallery):
    settings = Settings(poll=0, timeout=0.5, keep_alive=0.5)
    application = create_app(served, gallery, settings)
    with listening(application, settings) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n".encode())
            assert answer(connection) == (504, "Gave up after 0.5 seconds.")
        with socket.create_connection((host, int(port)), timeout=20) as connection:  # idle after an answer
            assert b"200 OK" in ask_health(connection)
            assert connection.recv(1) == b""
        with socket.socket() as connection:  # asks for much and reads nothing
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with pytest.raises(OSError):
                for _ in range(200):
                    connection.sendall(200 * request)
                    time.sleep(0.05)


def test_connections_have_a_largest_number(connect):
    held = [connect() for _ in range(60)]
    refused = [connection for connection in (connect() for _ in range(10)) if b"503" in connection.recv(1000)]
    assert len(refused) >= 5
    del held


def test_as_many_connections_as_are_allowed_are_answered(served):
    settings = Settings(poll=0, max_connections=3)
    with listening(create_app(served, settings=settings), settings) as address, contextlib.ExitStack() as stack:
        host, port = address.removeprefix("http://").split(":")
        held = [stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(4)]
        assert all(b"200 OK" in ask_health(connection) for connection in held[:3])
        assert b"503" in held[3].recv(1000)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8501",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "a@localhost",
    ],
)
def test_foreign_host_names_are_refused(client, host):
    for path in ("/", "/about", "/thumbnails/0", "/v1/models/colours", "/nothing"):
        refused = client.get(path, headers={"host": host})
        assert refused.status_code == 400
        assert "host name" in refused.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8501", "127.0.0.1:1", "[::1]:8501", "localhost.:80"])
def test_loopback_names_are_answered(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_other_hosts_can_be_allowed(served):
    settings = Settings(allowed_hosts=["search.example.com", "*.example.org"], poll=0)
    with TestClient(create_app(served, settings=settings), base_url="http://10.0.0.7") as client:
        for host, code in {"search.example.com": 200, "a.example.org": 200, "10.0.0.7": 200, "localhost": 400}.items():
            assert client.get("/health", headers={"host": host}).status_code == code
    everything = create_app(served, settings=Settings(allowed_hosts=["*"], poll=0))
    assert TestClient(everything).get("/health", headers={"host": "any.example"}).status_code == 200
    assert host_names("192.168.1.2")[:4] == ["localhost", "127.0.0.1", "[::1]", "192.168.1.2"]


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "9" * 5000 + ".5", "1e308", "1e400", "-1e39"])
@pytest.mark.parametrize("beside", ["1", "NaN"], ids=["plain", "with NaN"])
def test_numbers_that_no_input_can_hold_are_refused(client, number, beside):
    body = json.dumps({"instances": np.zeros((1, 16, 16, 3)).tolist()})
    body = body.replace("0.0, 0.0", f"{number}, {beside}", 1)
    refused = client.post(PREDICT, content=body)
    assert refused.status_code == 400
    assert any(word in refused.json()["error"] for word in ("too big", "infinity", "out of its range"))


def test_nan_and_infinity_go_both_ways(client):
    body = json.dumps({"instances": np.zeros((2, 16, 16, 3)).tolist()})
    for word in ("NaN", "Infinity", "-Infinity"):
        found = client.post(PREDICT, content=body.replace("0.0", word, 1))
        assert found.status_code == 200
        assert b"NaN" in found.content  # the embedding of what is no picture
        assert b"null" not in found.content
        first, second = found.json()["predictions"]
        assert np.isnan(first).any()
        assert np.isfinite(second).all()


def test_gzip_bodies(client, pictures):
    body = json.dumps({"instances": [pictures[0].tolist()]}).encode()
    plain = client.post(PREDICT, content=body).json()
    headers = {"Content-Encoding": "gzip"}
    packed = gzip.compress(body)
    assert client.post(PREDICT, content=packed, headers=headers).json() == plain
    assert client.post("/search", content=gzip.compress(png(pictures[0])), headers=headers).status_code == 200
    for content, code in {
        gzip.compress(bytes(50_000_000)): 413,
        packed[:-9]: 400,
        packed + b"more": 400,
        gzip.compress(b"") * 1000: 400,
        b"": 400,
        body: 400,
    }.items():
        refused = client.post(PREDICT, content=content, headers=headers)
        assert refused.status_code == code
        assert refused.json()["error"]
    assert client.post(PREDICT, content=body, headers={"Content-Encoding": "br"}).status_code == 415


def test_rows_have_a_largest_number(client):
    rows = [{"b64": ""}] * 3000
    refused = client.post(PREDICT, json={"signature_name": "serve_bytes", "instances": rows})
    assert refused.status_code == 413
    assert "2048 rows" in refused.json()["error"]


def test_a_form_with_one_file_is_searched(client, pictures):
    plain = client.post("/search?k=3", content=png(pictures[7])).json()["matches"]
    files = {"image": ("red.png", png(pictures[7]), "image/png")}
    assert client.post("/search?k=3", files=files, data={"note": "x"}).json()["matches"] == plain
    two = client.post("/search", files=[("a", png(pictures[0])), ("b", png(pictures[1]))])
    assert "Maximum number of files is 1" in two.json()["error"]  # the second one is not read
    for refused in (
        two,
        client.post("/search", files={"image": ("a", b"")}, data={f"field{n}": "x" for n in range(50)}),
        client.post("/search", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=a"}),
        client.post("/search", content=b"x", headers={"Content-Type": "multipart/form-data"}),
        client.post("/search", files={"a": (None, "text")}),
    ):
        assert refused.status_code == 400, refused.text
        assert "form" in refused.json()["error"]
    assert client.post("/search", files={"image": ("x.png", bytes(2_000_001))}).status_code == 413


def test_pages_of_other_origins_may_read_only_where_that_is_asked_for(client, served):
    asked_method = "Access-Control-Request-Method"
    asked = {"Origin": "https://shop.example", asked_method: "POST"}
    assert "access-control-allow-origin" not in client.get("/health", headers=asked).headers
    assert client.options(PREDICT, headers=asked).status_code == 405
    settings = Settings(cors_origins=["https://shop.example"], poll=0)
    with TestClient(create_app(served, settings=settings), base_url="http://localhost") as open_client:
        for found in (open_client.get("/nothing", headers=asked), open_client.options(PREDICT, headers=asked)):
            assert found.headers["access-control-allow-origin"] == "https://shop.example"
        other = {"Origin": "https://evil.example"}
        assert "access-control-allow-origin" not in open_client.get("/health", headers=other).headers
        for refused, what in (({**asked, **other}, "origin"), ({**asked, asked_method: "DELETE"}, "method")):
            found = open_client.options(PREDICT, headers=refused)
            assert found.status_code == 400 and found.json() == {"error": f"Disallowed CORS {what}"}
            assert "Origin" in found.headers["vary"]


def test_limits_are_checked():
    with pytest.raises(ValueError, match="`timeout` must be a finite number above 0; received 0"):
        Settings(timeout=0)
    with pytest.raises(ValueError, match="`max_bodies` must be at least `max_body`"):
        Settings(max_bodies=1000)
    assert Settings(max_body=1000, max_bodies=1000).max_bodies == 1000
    with pytest.raises(ValueError, match="`allowed_hosts` must be a list"):
        Settings(allowed_hosts="localhost")
    assert Settings().waiting_rows >= max(batching.SIZES)


def bitonal(side):
    """A PNG of a few kilobytes that is decoded to side × side pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_pixels_of_a_request_have_a_largest_sum(client, pictures):
    def ask(contents):
        rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
        return client.post(PREDICT, json={"signature_name": "serve_bytes", "instances": rows})

    refused = ask([bitonal(8000)] * 5)
    assert refused.status_code == 413
    assert refused.json()["error"] == "The images of a request have at most 256 megapixels; received 320.0."
    # What is refused by its own header costs nothing, and so does what is no image.
    found = ask([bitonal(9000)] * 5 + [b"", b"\xff\xd8", b"BM", png(pictures[0])])
    assert found.status_code == 200
    assert [row["valid"] for row in found.json()["predictions"]] == 8 * [False] + [True]


def test_what_is_decoded_at_a_time_waits_in_turn():
    async def scenario():
        budget, events = Budget(4), []

        async def use(name, amount, seconds=0.0):
            async with budget.waiting(amount):
                events.append(name)
                await asyncio.sleep(seconds)

        given_up = asyncio.create_task(asyncio.wait_for(use("late", 9), 0.02))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(use(*one)) for one in (("a", 3, 0.05), ("b", 2), ("c", 1), ("none", 0))]
        with pytest.raises(TimeoutError):
            await given_up
        await asyncio.sleep(0.01)
        assert events == ["a"]
        await asyncio.gather(*tasks)
        assert (events, budget.held) == (["a", "b", "c", "none"], 0)

    asyncio.run(scenario())


def test_bodies_have_a_largest_sum(served):
    settings = Settings(max_body=100_000, max_bodies=150_000, poll=0)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode()
    with listening(create_app(served, settings=settings), settings) as address:
        host, port = address.removeprefix("http://").split(":")

        def send(size):
            connection = socket.create_connection((host, int(port)), timeout=20)
            connection.sendall(head + b"[" * size)
            return connection

        with send(90_000):
            time.sleep(0.5)
            with send(100_000) as second:
                assert second.recv(100_000).startswith(b"HTTP/1.1 503 ")
        time.sleep(0.5)
        with send(100_000) as third:
            assert third.recv(100_000).startswith(b"HTTP/1.1 400 ")


def chunked(data, size, head=f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"):
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_tiny_chunks_are_refused_before_they_cost_much(connect, pictures, monkeypatch):
    """A megabyte of them kept everybody waiting for a second."""
    body = json.dumps({"instances": [pictures[0].tolist()] * 100}).encode()
    connection = connect()
    connection.sendall(chunked(body, 100))
    assert connection.recv(100_000).startswith(b"HTTP/1.1 200 ")
    connection.close()

    events, original = [0], protocol._Connection.next_event

    def count(self):
        events[0] += 1
        return original(self)

    monkeypatch.setattr(protocol._Connection, "next_event", count)
    connection = connect()
    with contextlib.suppress(OSError):
        connection.sendall(chunked(body, 1))
    assert answer(connection) == (400, "The body is no valid HTTP, or comes in chunks of fewer than 64 bytes.")
    assert events[0] < 1100
    connection = connect()
    connection.sendall(chunked(b"", 1)[:-5] + b"no size\r\n")
    assert answer(connection)[0] == 400
    assert b"200 OK" in ask_health(connect())


def test_a_header_has_a_largest_number_of_fields(client):
    assert client.get("/health", headers={f"x{n}": "" for n in range(80)}).status_code == 200
    refused = client.get("/health", headers={f"x{n}": "" for n in range(120)})
    assert (refused.status_code, refused.json()["error"]) == (431, "The header has more than 100 fields.")


def test_a_large_header_is_not_parsed_at_all(connect, monkeypatch):
    def fail(self, data):
        raise AssertionError("parsed")

    monkeypatch.setattr(protocol._Connection, "receive_data", fail)
    connection = connect()
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * 50_000 + b"\r\n")
    assert answer(connection)[0] == 431


@pytest.mark.parametrize(
    "instances",
    [[[]], [[], []], [[[[]]]], "[" * 500 + "]" * 500, "[" * 100_000, "[" * 100_000 + "NaN", [{}] * 2, [[1]] * 100_000],
    ids=["an empty row", "two", "deep and empty", "deep", "unfinished", "unfinished, with NaN", "objects", "many"],
)
def test_instances_that_are_no_images(client, instances):
    text = instances if isinstance(instances, str) else json.dumps(instances)
    refused = client.post(PREDICT, content='{"instances": ' + text + "}")
    assert refused.status_code == 400
    assert len(refused.json()["error"]) < 300


@pytest.mark.parametrize(
    ("data", "too_large"),
    [(b"x" * 7, False), (b"x" * 8, True), (b"x" * 5 + b"\r\n\r\n", False), (b"x" * 20, True)],
)
def test_an_unfinished_header_may_be_as_large_as_the_limit(data, too_large):
    some = types.SimpleNamespace(
        _settings=types.SimpleNamespace(max_header=10), conn=types.SimpleNamespace(trailing_data=(b"abc", False))
    )
    assert protocol.LimitedProtocol._is_too_large(some, data) is too_large

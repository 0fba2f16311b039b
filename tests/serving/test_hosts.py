"""What is refused before anything else sees a request: its answer to the letter, at the exact limits."""

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed: pip install -e '.[serve]'")

from tf_detreg.serving.hosts import Guard


class Application:
    """Answers with a header of its own, and counts."""

    def __init__(self):
        self.asked = []

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": b"good"})


def ask(guard, headers=(), target=b"/", query=b"", server=("127.0.0.1", 80), kind="http"):
    """Return the status, the headers and the body of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": list(headers), "raw_path": target, "query_string": query, "server": server}
    asyncio.run(guard(scope, None, send))
    if not sent:
        return None
    start, *bodies = sent
    return start["status"], dict(start["headers"]), b"".join(part.get("body", b"") for part in bodies)


@pytest.fixture
def guard():
    return Guard(Application(), ["localhost", "Shop.Example.", "*.example.org"], 40, 2)


def refused(guard, status, text, **asked):
    found, headers, body = ask(guard, **asked)
    assert (found, json.loads(body)) == (status, {"error": text})
    assert headers[b"x-content-type-options"] == b"nosniff" and headers[b"content-type"] == b"application/json"
    assert guard._application.asked == []


def test_what_is_let_through_is_answered_and_may_not_be_taken_for_another_type(guard):
    status, headers, body = ask(guard, [(b"host", b"localhost")])
    assert (status, body) == (200, b"good") and headers == {b"a": b"b", b"x-content-type-options": b"nosniff"}
    assert ask(guard, kind="lifespan") is None and guard._application.asked == ["http", "lifespan"]


def test_a_header_counts_with_its_target_and_four_bytes_a_field(guard):
    # 4 + 9 + 4 of the host, the target, the query: 40 in all.
    host = (b"host", b"localhost")
    assert ask(guard, [host], target=b"/" * 20, query=b"abc")[0] == 200
    guard._application.asked.clear()
    large = "The header is larger than 40 bytes."
    refused(guard, 431, large, headers=[host], target=b"/" * 20, query=b"abcd")
    refused(guard, 431, large, headers=[host, (b"x", b"1" * 18)], target=b"/")
    refused(guard, 431, large, headers=[(b"x" * 37, b"")], target=None)


def test_fields_are_counted(guard):
    assert ask(guard, [(b"a", b"b"), (b"a", b"b")])[0] == 200
    guard._application.asked.clear()
    refused(guard, 431, "The header has more than 2 fields.", headers=[(b"a", b"b")] * 3)


FOREIGN = "This server does not answer to this host name. Its owner can allow it: allowed_hosts (--allow-host)."


@pytest.mark.parametrize(
    "host", [b"evil.test", b"example.org", b"xexample.org", b"", b"localhost:123456", b"a b", b"[::1"]
)
def test_foreign_names_are_refused(guard, host):
    refused(guard, 400, FOREIGN, headers=[(b"host", host)])


def test_two_names_are_refused_and_none_is_not(guard):
    refused(guard, 400, FOREIGN, headers=[(b"host", b"localhost")] * 2, target=b"")
    assert ask(guard)[0] == 200


@pytest.mark.parametrize(
    ("host", "server"),
    [
        (b"LOCALHOST.:8501", None),
        (b"shop.example", None),
        (b"a.example.org", None),
        (b"10.0.0.7:80", ("10.0.0.7", 80)),
        (b"[fe80::1]:80", ("fe80::1", 80)),
    ],
)
def test_names_and_addresses_of_this_server_are_answered(guard, host, server):
    assert ask(guard, [(b"host", host)], server=server)[0] == 200


def test_every_name_may_be_allowed():
    assert ask(Guard(Application(), ["*"], 99, 9), [(b"host", b"evil.test")])[0] == 200
    assert ask(Guard(Application(), [], 99, 9), [(b"host", b"evil.test")])[0] == 400

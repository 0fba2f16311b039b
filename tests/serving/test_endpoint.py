"""What every answer of the server has: a code, a sentence in JSON, a count and its seconds in the metrics."""

import asyncio
import json
import types

import pytest

endpoint = pytest.importorskip("tf_detreg.serving.endpoint", reason="the extra `serve` is not installed")

from starlette.requests import ClientDisconnect  # noqa: E402 - needs the extra as well
from starlette.responses import Response  # noqa: E402

from tf_detreg.serving.metrics import Metrics  # noqa: E402
from tf_detreg.serving.problem import BadRequest, Problem  # noqa: E402


def answered(outcome, monkeypatch):
    """The answer to a function that returns or raises this, and the metrics; the function takes 2.5 seconds."""

    async def function(request):
        if outcome == "late":
            await asyncio.sleep(60)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    clock = iter((5.0, 7.5))
    monkeypatch.setattr(endpoint, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    metrics = Metrics()
    return asyncio.run(endpoint.endpoint(function, "search", metrics, timeout=0.05)(None)), metrics.registry


@pytest.mark.parametrize(
    ("outcome", "code", "error", "header"),
    [
        (BadRequest("no such thing"), 400, "no such thing", {}),
        (Problem(401, "who?"), 401, "who?", {"www-authenticate": "Bearer"}),
        (Problem(503, "busy"), 503, "busy", {"retry-after": "1"}),
        (Problem(404, "gone"), 404, "gone", {}),
        ("late", 504, "Gave up after 0.05 seconds.", {}),
        (ZeroDivisionError("secret"), 500, "Internal error; the server's log says more.", {}),
        (ClientDisconnect(), 499, None, {}),
        (Response(b"fine"), 200, None, {}),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, int) else "",
)
def test_whatever_happens_is_answered_and_counted(outcome, code, error, header, monkeypatch, caplog):
    response, registry = answered(outcome, monkeypatch)
    assert response.status_code == code
    if error is not None:
        assert json.loads(response.body) == {"error": error}
    found = {name: response.headers.get(name) for name in ("www-authenticate", "retry-after")}
    assert found == {"www-authenticate": None, "retry-after": None, **header}
    counted = registry.get_sample_value("tf_detreg_requests_total", {"endpoint": "search", "code": str(code)})
    seconds = [
        registry.get_sample_value(f"tf_detreg_request_seconds_{what}", {"endpoint": "search"})
        for what in ("count", "sum")
    ]
    assert (counted, seconds) == (1, [1, 2.5])
    # Only what nobody expected is written to the log, with its cause.
    logged = [
        (record.getMessage(), record.exc_info[0]) for record in caplog.records if record.name == endpoint.__name__
    ]
    assert logged == ([("search failed", ZeroDivisionError)] if code == 500 else [])

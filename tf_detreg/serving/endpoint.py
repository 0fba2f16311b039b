"""What all answers have in common: a time limit, errors in JSON, a limit on the body and a place in the metrics."""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tf_detreg.serving import wire
from tf_detreg.serving.batching import Overloaded
from tf_detreg.serving.metrics import Metrics

logger = logging.getLogger(__name__)


class Problem(Exception):
    """An answer other than success, with its HTTP code."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


class Endpoint:
    """An ASGI application around one function from a request to a response.

    Starlette would put a plain function behind three more layers, which a small model's requests notice.

    Args:
        function: Answers; what it raises becomes an answer too.
        name: Its label in the metrics.
        metrics: Where answers are counted.
        timeout: Seconds until a request is given up.
    """

    def __init__(self, function: Callable[[Request], Awaitable[Response]], name: str, metrics: Metrics, timeout: float):
        self._function, self._name, self._timeout = function, name, timeout
        self._seconds = metrics.seconds.labels(name)
        self._answers = functools.cache(lambda code: metrics.requests.labels(name, str(code)))

    async def __call__(self, scope, receive, send) -> None:
        start = time.perf_counter()
        response = await self._response(Request(scope, receive))
        self._seconds.observe(time.perf_counter() - start)
        self._answers(response.status_code).inc()
        response.raw_headers.append((b"x-content-type-options", b"nosniff"))
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._function(request)
        except Problem as problem:
            return JSONResponse({"error": str(problem)}, problem.code)
        except wire.BadRequest as problem:
            return JSONResponse({"error": str(problem)}, 400)
        except Overloaded:
            return JSONResponse({"error": "The server is busy."}, 503, {"Retry-After": "1"})
        except TimeoutError:
            return JSONResponse({"error": f"Gave up after {self._timeout:g} seconds."}, 504)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            logger.exception("%s failed", self._name)
            return JSONResponse({"error": "Internal error; the server's log says more."}, 500)


class Shortcut:
    """An ASGI application that hands POSTs to one path straight to its endpoint, and all else to the application.

    Args:
        path: Where most requests go.
        endpoint: What answers them.
        application: What answers the others.
    """

    def __init__(self, path: str, endpoint: Endpoint, application):
        self._path, self._endpoint, self._application = path, endpoint, application

    async def __call__(self, scope, receive, send) -> None:
        short = scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        await (self._endpoint if short else self._application)(scope, receive, send)


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body, read no further than the limit.

    Raises:
        Problem: 413, if it is larger, or says so.
        ClientDisconnect: If the client left.
    """
    declared = request.headers.get("content-length", "0")
    _refuse_larger(int(declared) if declared.isdecimal() else 0, limit)
    parts, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part, more = message.get("body", b""), message.get("more_body", False)
        parts.append(part)
        size += len(part)
        _refuse_larger(size, limit)
    return b"".join(parts)


def _refuse_larger(size: int, limit: int) -> None:
    if size > limit:
        raise Problem(413, f"The request is larger than {limit} bytes.")

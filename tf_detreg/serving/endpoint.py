"""What all HTTP answers have in common: a time limit, errors in JSON and their counts in the metrics."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tf_detreg.serving.metrics import Metrics
from tf_detreg.serving.problem import Problem

logger = logging.getLogger(__name__)

Answer = Callable[[Request], Awaitable[Response]]


def endpoint(function: Answer, name: str, metrics: Metrics, timeout: float) -> Answer:
    """Wrap a function from a request to a response, so that it always answers.

    Args:
        function: Answers; what it raises becomes an answer too.
        name: Its label in the metrics.
        metrics: Where answers are counted.
        timeout: Seconds until a request is given up.

    Returns:
        A function like the given one that raises nothing.
    """

    async def answer(request: Request) -> Response:
        start = time.perf_counter()
        try:
            async with asyncio.timeout(timeout):
                response = await function(request)
        except Problem as problem:
            headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(problem.code)
            response = JSONResponse({"error": str(problem)}, problem.code, headers)
        except TimeoutError:
            response = JSONResponse({"error": f"Gave up after {timeout:g} seconds."}, 504)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception:  # a client always gets an answer, and the log the reason
            logger.exception("%s failed", name)
            response = JSONResponse({"error": "Internal error; the server's log says more."}, 500)
        metrics.seconds.labels(name).observe(time.perf_counter() - start)
        metrics.requests.labels(name, str(response.status_code)).inc()
        return response

    return answer


async def unknown(request: Request, error: Exception) -> Response:
    """Answer a request that no route takes, in JSON and with TensorFlow Serving's words."""
    code = error.status_code if isinstance(error, HTTPException) else 404
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse({"error": f"Malformed request: {request.method} {request.url.path}"}, code, headers)

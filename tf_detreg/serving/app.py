"""The server's application: TensorFlow Serving's API, the search page, health and metrics, behind one guard."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_detreg.serving.endpoint import Answer, endpoint, unknown
from tf_detreg.serving.gallery import Gallery
from tf_detreg.serving.hosts import Guard
from tf_detreg.serving.metrics import Metrics
from tf_detreg.serving.model import ModelDirectory
from tf_detreg.serving.predictor import Predictor
from tf_detreg.serving.rest import Rest
from tf_detreg.serving.search import Search
from tf_detreg.serving.settings import Settings

__all__ = ["Settings", "create_app"]


def create_app(
    model: ModelDirectory,
    gallery: Gallery | None = None,
    settings: Settings | None = None,
    *,
    grpc_address: str | None = None,
) -> Guard:
    """Make the ASGI application.

    Limits on time and on connections belong to the HTTP server: `serving.serve` sets them.

    Args:
        model: What to serve.
        gallery: What the page searches. Default none: the page says how to add one.
        settings: Limits. Default `Settings()`.
        grpc_address: Where to answer gRPC too while the application runs, such as `127.0.0.1:8500`. Default None:
            nowhere.

    Returns:
        The application.

    Raises:
        ValueError: If the gallery was made by another model.
    """
    settings = settings or Settings()
    metrics = Metrics()
    predictor = Predictor(model, settings, metrics)

    def wrap(function: Answer, name: str) -> Answer:
        return endpoint(function, name, metrics, settings.timeout)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": model.name, "version": model.current.number})

    async def show_metrics(request: Request) -> Response:
        metrics.waiting.set(predictor.waiting())
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(predictor.running())
            if grpc_address is not None:
                from tf_detreg.serving import grpc_api

                await stack.enter_async_context(grpc_api.listening(predictor, grpc_address))
            yield

    routes = [*Rest(predictor).routes(wrap), *Search(predictor, gallery).routes(wrap)]
    routes += [
        Route("/health", wrap(health, "health"), methods=["GET"]),
        Route("/metrics", wrap(show_metrics, "metrics"), methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=_cors(settings),
        exception_handlers={HTTPException: unknown},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, settings.allowed_hosts, settings.max_header, settings.max_fields)


class _Cors(CORSMiddleware):
    """Starlette's own CORS answers, with a refused preflight in JSON as all errors are."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        kept = {key: value for key, value in answer.headers.items() if key not in ("content-length", "content-type")}
        return JSONResponse({"error": bytes(answer.body).decode()}, answer.status_code, kept)


def _cors(settings: Settings) -> list[Middleware]:
    """Answer to CORS, where pages of other origins may read ours."""
    if not settings.cors_origins:
        return []
    headers = ["Content-Type", "Content-Encoding", "Authorization"]
    origins = list(settings.cors_origins)
    return [Middleware(_Cors, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=headers)]

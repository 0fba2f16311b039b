"""The server's routes: predict as TensorFlow Serving does, search, the page, health and metrics."""

import asyncio
import base64
import contextlib
import dataclasses
import gc
import hashlib
import pathlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_detreg.serving import wire
from tf_detreg.serving.batching import Batcher
from tf_detreg.serving.endpoint import Endpoint, Problem, Shortcut, read_body
from tf_detreg.serving.gallery import MOST_NEIGHBOURS, Gallery
from tf_detreg.serving.metrics import Metrics
from tf_detreg.serving.model import ModelDirectory

PAGE = pathlib.Path(__file__).with_name("page.html")
SMALL = 100_000  # bytes that are read or written in less time than another thread needs to take them over


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits of the server.

    Args:
        max_body: Bytes of a request. Default 32 MB.
        timeout: Seconds until a request is given up. Default 30.
        batch_rows: Rows that run together. Default 64.
        waiting_rows: Rows that may wait; above that the answer is 503. Default 2048.
        workers: Model calls at a time. Default 2.
        poll: Seconds between looks for a newer version; 0 for none. Default 5.
    """

    max_body: int = 32_000_000
    timeout: float = 30.0
    batch_rows: int = 64
    waiting_rows: int = 2048
    workers: int = 2
    poll: float = 5.0


def create_app(model: ModelDirectory, gallery: Gallery | None = None, settings: Settings | None = None) -> Shortcut:
    """The ASGI application.

    Args:
        model: What to serve.
        gallery: What the page searches; without it the page says how to add one.
        settings: Limits.

    Raises:
        ValueError: If the gallery was made by another model.
    """
    server = _Server(model, gallery, settings or Settings())
    return server.app()


class _Server:
    def __init__(self, model: ModelDirectory, gallery: Gallery | None, settings: Settings):
        self.model, self.gallery, self.settings = model, gallery, settings
        self.metrics = Metrics()
        self.batchers: dict[tuple[int, str], Batcher] = {}
        self.page, self.policy = _page()
        self._refuse_other_gallery()

    def app(self) -> Shortcut:
        named = f"/v1/models/{self.model.name}"
        version = named + "/versions/{version:int}"
        predict = self._endpoint(self.predict, "predict")
        status = self._endpoint(self.status, "status")
        metadata = self._endpoint(self.metadata, "metadata")
        routes = [
            Route(f"{named}:predict", predict, methods=["POST"]),
            Route(f"{version}:predict", predict, methods=["POST"]),
            Route(named, status, methods=["GET"]),
            Route(version, status, methods=["GET"]),
            Route(f"{named}/metadata", metadata, methods=["GET"]),
            Route(f"{version}/metadata", metadata, methods=["GET"]),
            Route("/", self._endpoint(self.show_page, "page"), methods=["GET"]),
            Route("/about", self._endpoint(self.about, "about"), methods=["GET"]),
            Route("/search", self._endpoint(self.search, "search"), methods=["POST"]),
            Route("/neighbours/{place:int}", self._endpoint(self.neighbours, "neighbours"), methods=["GET"]),
            Route("/thumbnails/{place:int}", self._endpoint(self.thumbnail, "thumbnail"), methods=["GET"]),
            Route("/health", self._endpoint(self.health, "health"), methods=["GET"]),
            Route("/metrics", self._endpoint(self.show_metrics, "metrics"), methods=["GET"]),
        ]
        return Shortcut(f"{named}:predict", predict, Starlette(routes=routes, lifespan=self._lifespan))

    def _endpoint(self, function, name: str) -> Endpoint:
        return Endpoint(function, name, self.metrics, self.settings.timeout)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app):
        # Threads for the model, and others for JSON and search, so that neither starves the other.
        self.model_threads = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="model")
        self.threads = ThreadPoolExecutor(4, thread_name_prefix="work")
        self.batchers.clear()
        self.metrics.version.set(self.model.current.number)
        watcher = asyncio.create_task(self._watch()) if self.settings.poll else None
        _settle()
        yield
        gc.unfreeze()
        if watcher is not None:
            watcher.cancel()
        self.model_threads.shutdown(wait=False, cancel_futures=True)
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(self):
        """Takes over newer versions; one that does not fit the gallery is not used for searching."""
        while True:
            await asyncio.sleep(self.settings.poll)
            if await self._in_thread(self.model.take_newest):
                self.batchers.clear()
                self.metrics.version.set(self.model.current.number)
                _settle()

    # TensorFlow Serving's API.

    async def predict(self, request: Request) -> Response:
        version = self._version(request)
        body = await read_body(request, self.settings.max_body)
        signature, inputs, rows = await self._by_size(len(body), _read, body, version)
        outputs = await self._run(version, signature, inputs)
        size = sum(value.nbytes for value in outputs.values())
        return Response(await self._by_size(size, wire.answer, outputs, rows), media_type="application/json")

    async def status(self, request: Request) -> Response:
        version = self._version(request)
        state = {"version": str(version.number), "state": "AVAILABLE"}
        return JSONResponse({"model_version_status": [state | {"status": {"error_code": "OK", "error_message": ""}}]})

    async def metadata(self, request: Request) -> Response:
        version = self._version(request)
        signatures = {
            name: {
                "inputs": {key: _tensor(spec) for key, spec in version.inputs(name).items()},
                "outputs": {key: _tensor(spec) for key, spec in version.outputs(name).items()},
                "method_name": "tensorflow/serving/predict",
            }
            for name in version.signatures
        }
        spec = {"name": self.model.name, "signature_name": "", "version": str(version.number)}
        return JSONResponse({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}})

    # Search.

    async def search(self, request: Request) -> Response:
        gallery, k = self._gallery(), _neighbours(request)
        start = time.perf_counter()
        content = np.empty(1, object)
        content[0] = await read_body(request, self.settings.max_body)
        version = self.model.current
        outputs = await self._run(version, "serve_bytes", {"image_bytes": content})
        if not outputs["valid"][0]:
            millions = version.facts.get("max_pixels", 64_000_000) // 1_000_000
            raise Problem(
                422,
                "This is not an image that can be read. Use a JPEG, PNG, WebP, GIF or BMP file "
                f"of at most {millions} megapixels.",
            )
        matches = await self._in_thread(gallery.search, outputs["embeddings"], k)
        return JSONResponse({"matches": matches, "milliseconds": _milliseconds(start)})

    async def neighbours(self, request: Request) -> Response:
        gallery, k, place = self._gallery(), _neighbours(request), request.path_params["place"]
        start = time.perf_counter()
        if place >= len(gallery):
            raise Problem(404, f"There are {len(gallery)} items.")
        matches = await self._in_thread(gallery.search, gallery.index.embeddings[place][None], k)
        return JSONResponse({"matches": matches, "milliseconds": _milliseconds(start)})

    async def thumbnail(self, request: Request) -> Response:
        picture = self._gallery().thumbnail(request.path_params["place"])
        if picture is None:
            raise Problem(404, "There is no picture of this item.")
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def about(self, request: Request) -> Response:
        version = self.model.current
        about = {"model": self.model.name, "version": version.number, "max_body": self.settings.max_body}
        about["items"] = len(self.gallery) if self.gallery else 0
        about["samples"] = self.gallery.samples(6) if self.gallery else []
        return JSONResponse(about)

    async def show_page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": self.policy, "Referrer-Policy": "no-referrer"}
        return Response(self.page, media_type="text/html", headers=headers)

    # For those who watch over it.

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self.model.name, "version": self.model.current.number})

    async def show_metrics(self, request: Request) -> Response:
        self.metrics.waiting.set(sum(batcher.waiting for batcher in self.batchers.values()))
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    # Helpers.

    async def _run(self, version, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        key = (version.number, signature)
        if key not in self.batchers:
            self.batchers[key] = Batcher(
                lambda batch: version.run(signature, batch),
                self.model_threads,
                workers=self.settings.workers,
                most=self.settings.batch_rows,
                waiting=self.settings.waiting_rows,
                observe=self.metrics.batch_rows.observe,
            )
        outputs = await self.batchers[key](inputs)
        if "valid" in outputs:
            self.metrics.invalid.inc(outputs["valid"].size - np.count_nonzero(outputs["valid"]))
        return outputs

    async def _in_thread(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def _by_size(self, size: int, function, *arguments):
        """Calls a function here, or in a thread where its `size` bytes would hold up the other requests."""
        return function(*arguments) if size < SMALL else await self._in_thread(function, *arguments)

    def _version(self, request: Request):
        asked, version = request.path_params.get("version"), self.model.current
        if asked not in (None, version.number):
            raise Problem(404, f"Servable not found for request: Specific({self.model.name}, {asked})")
        return version

    def _gallery(self) -> Gallery:
        if self.gallery is None:
            raise Problem(404, "This server has no gallery to search. Start it with an index.")
        try:
            self._refuse_other_gallery()
        except ValueError as error:  # a newer model was taken over since
            raise Problem(503, str(error)) from None
        return self.gallery

    def _refuse_other_gallery(self) -> None:
        if self.gallery is None:
            return
        made_by, serving = self.gallery.index.fingerprint, self.model.current.facts.get("fingerprint")
        if "serve_bytes" not in self.model.current.signatures:
            raise ValueError(f"model {self.model.name!r} has no signature serve_bytes, which searching needs.")
        if made_by and serving and made_by != serving:
            raise ValueError(
                f"index was made by another model ({made_by}) than the one that serves ({serving}, version "
                f"{self.model.current.number}): its distances mean nothing here. Embed the gallery again."
            )


def _settle() -> None:
    """Frees what is no longer used, and spares the garbage collector all that lives as long as the loaded version: it
    would look through TensorFlow's half a million objects again and again, once for every few thousand requests."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _page() -> tuple[str, str]:
    """The page and the policy that lets nothing run in it but its own style and script."""
    page = PAGE.read_text(encoding="utf-8")

    def mark(tag: str) -> str:
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    policy = f"default-src 'none'; style-src {mark('style')}; script-src {mark('script')}; connect-src 'self'; "
    return page, policy + "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _read(body: bytes, version) -> tuple[str, dict[str, np.ndarray], bool]:
    """Signature, inputs and whether they came as rows, of a predict request."""
    signature, content, rows = wire.parse(body)
    if signature not in version.signatures:
        raise Problem(404, f'Serving signature name: "{signature}" not found in signature def')
    return signature, wire.arrays(content, rows, version.inputs(signature)), rows


def _neighbours(request: Request) -> int:
    text = request.query_params.get("k", "12")
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_NEIGHBOURS:
        raise Problem(400, f"k must be a number from 1 to {MOST_NEIGHBOURS}.")
    return int(text)


def _milliseconds(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 1)


def _tensor(spec) -> dict:
    dims = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape.as_list()]
    return {"dtype": f"DT_{_DTYPES.get(spec.dtype.name, spec.dtype.name.upper())}", "tensor_shape": {"dim": dims}}


_DTYPES = {"float32": "FLOAT"}

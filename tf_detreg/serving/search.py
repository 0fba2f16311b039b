"""The search page and what it asks: search with a file or an item, pictures and facts of items."""

import base64
import hashlib
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_detreg.retrieval.identity import same_model, short
from tf_detreg.serving.bodies import body_of, uploaded
from tf_detreg.serving.gallery import MOST_NEIGHBORS, Gallery
from tf_detreg.serving.predictor import Predictor
from tf_detreg.serving.problem import BadRequest, Problem
from tf_detreg.serving.writes import Writes

HERE = pathlib.Path(__file__).parent
_CACHED = {"Cache-Control": "private, max-age=3600"}


class Search:
    """The page and its interface.

    Args:
        predictor: What embeds pictures.
        gallery: What is searched; without it the page says how to add one.

    Raises:
        ValueError: If the gallery was made by another model.
    """

    def __init__(self, predictor: Predictor, gallery: Gallery | None) -> None:
        self._predictor, self._gallery = predictor, gallery
        self._page, self._policy = _page()
        self._writes = Writes(predictor, self._searched, self._embedded)
        self._refuse_other_gallery()

    def routes(self, wrap: Callable[..., Any]) -> list[Route]:
        """Return Starlette's routes; `wrap(function, name)` makes an endpoint of a function."""
        neighbors = wrap(self.neighbors, "neighbors")
        return [
            Route("/", wrap(self.show_page, "page"), methods=["GET"]),
            Route("/about", wrap(self.about, "about"), methods=["GET"]),
            Route("/search", wrap(self.search, "search"), methods=["POST"]),
            Route("/neighbors/{item}", neighbors, methods=["GET"]),
            Route("/neighbours/{item}", neighbors, methods=["GET"]),  # its name in 0.1.0
            Route("/items/{item}", wrap(self.item, "items"), methods=["GET"]),
            Route("/items/{id:path}", wrap(self._writes.put, "put"), methods=["PUT"]),
            Route("/items/{id:path}", wrap(self._writes.delete, "delete"), methods=["DELETE"]),
            Route("/thumbnails/{item}", wrap(self.thumbnail, "thumbnails"), methods=["GET"]),
            Route("/pictures/{item}", wrap(self.picture, "pictures"), methods=["GET"]),
        ]

    async def search(self, request: Request) -> Response:
        """Return the nearest items of an image file, which is the body or the one file of a form."""
        gallery, k = await self._predictor.in_thread(self._searched), _count(request)
        start = time.perf_counter()
        async with body_of(request, self._predictor.settings.max_body, self._predictor.bodies) as body:
            embeddings = await self._embedded(await uploaded(request.headers, body))
        matches = await self._predictor.in_thread(gallery.search, embeddings, k)
        return JSONResponse({"matches": matches, "milliseconds": _milliseconds(start)})

    async def _embedded(self, content: bytes) -> np.ndarray:
        """Return the embedding (1, dim) of an image file."""
        rows = np.empty(1, object)
        rows[0] = content
        version = self._predictor.model.current
        outputs = await self._predictor.run(version, "serve_bytes", {"image_bytes": rows})
        if not outputs["valid"][0]:
            millions = version.facts.get("max_pixels", 64_000_000) // 1_000_000
            raise Problem(
                422,
                "This is not an image that can be read. Use a JPEG, PNG, WebP, GIF or BMP file "
                f"of at most {millions} megapixels.",
            )
        return outputs["embeddings"]

    async def neighbors(self, request: Request) -> Response:
        """Return the nearest items of an item, without itself."""
        gallery, k = await self._predictor.in_thread(self._searched), _count(request)
        start, item = time.perf_counter(), await self._item(request, gallery)
        matches = await self._of(gallery, item, gallery.neighbors, k)
        facts = await self._of(gallery, item, gallery.facts)
        return JSONResponse({"item": facts, "matches": matches, "milliseconds": _milliseconds(start)})

    async def item(self, request: Request) -> Response:
        """Return all that is known about an item."""
        gallery = self._shown()
        item = await self._item(request, gallery)
        return JSONResponse(await self._of(gallery, item, gallery.facts))

    async def thumbnail(self, request: Request) -> Response:
        """Return a small picture of an item."""
        gallery = self._shown()
        item = await self._item(request, gallery)
        return _jpeg(await self._predictor.in_thread(gallery.thumbnail, item))

    async def picture(self, request: Request) -> Response:
        """Return a large picture of an item."""
        gallery = self._shown()
        item = await self._item(request, gallery)
        return _jpeg(await self._predictor.in_thread(gallery.picture, item))

    async def about(self, request: Request) -> Response:
        """Return what the page says of itself, and where it starts."""
        version, gallery = self._predictor.model.current, self._gallery
        about = {"model": self._predictor.model.name, "version": version.number}
        about["max_body"] = self._predictor.settings.max_body
        about["items"] = await self._predictor.in_thread(len, gallery) if gallery is not None else 0
        about["samples"] = await self._predictor.in_thread(gallery.samples, 12) if gallery is not None else []
        return JSONResponse(about)

    async def show_page(self, request: Request) -> Response:
        """Return the page itself, which loads nothing from elsewhere."""
        headers = {"Content-Security-Policy": self._policy, "Referrer-Policy": "no-referrer"}
        return Response(self._page, media_type="text/html", headers=headers)

    async def _item(self, request: Request, gallery: Gallery) -> int:
        """Return the number of an item from the path."""
        text = request.path_params["item"]
        if not re.fullmatch("[0-9]{1,12}", text) or not await self._predictor.in_thread(gallery.has, int(text)):
            raise await self._no_item(gallery)
        return int(text)

    async def _of(self, gallery: Gallery, item: int, function: Callable[..., Any], *more: Any) -> Any:
        """Return what a function of the gallery says of an item; 404 where it was removed since it was looked up."""
        try:
            return await self._predictor.in_thread(function, item, *more)
        except ValueError:
            if await self._predictor.in_thread(gallery.has, item):
                raise
            raise await self._no_item(gallery) from None

    async def _no_item(self, gallery: Gallery) -> Problem:
        count = await self._predictor.in_thread(len, gallery)
        return Problem(404, f"There is no such item. There are {count}, numbered from 0.")

    def _shown(self) -> Gallery:
        if self._gallery is None:
            raise Problem(404, "This server has no gallery to search. Start it with an index.")
        return self._gallery

    def _searched(self) -> Gallery:
        """Return what is searched. It waits for a change of the index to end, so call it in a thread."""
        gallery = self._shown()
        try:
            self._refuse_other_gallery()
        except ValueError as error:  # another version was taken over since
            raise Problem(503, str(error)) from None
        return gallery

    def _refuse_other_gallery(self) -> None:
        if self._gallery is None:
            return
        model = self._predictor.model
        if "serve_bytes" not in model.current.signatures:
            raise ValueError(f"The model {model.name!r} has no signature serve_bytes, which searching needs.")
        serving = model.current.facts.get("fingerprint")
        others = sorted(one for one in self._gallery.fingerprints if serving and not same_model(one, serving))
        if serving and others:
            raise ValueError(
                f"`index` was made by another model ({short(others[0])}) than the one that serves ({short(serving)}, "
                f"version {model.current.number}): its distances mean nothing here. Embed the gallery again."
            )


def _page() -> tuple[str, str]:
    """Return the page and the policy that lets nothing run in it but its own style and script."""
    page, policy = (HERE / "page.html").read_text(encoding="utf-8"), "default-src 'none'; "
    for tag, file in (("style", "page.css"), ("script", "page.js")):
        text = (HERE / file).read_text(encoding="utf-8")
        page = page.replace(f"<{tag}></{tag}>", f"<{tag}>{text}</{tag}>")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        policy += f"{tag}-src 'sha256-{digest}'; "
    policy += "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    return page, policy + "frame-ancestors 'none'"


def _jpeg(content: bytes | None) -> Response:
    if content is None:
        raise Problem(404, "There is no picture of this item.")
    return Response(content, media_type="image/jpeg", headers=_CACHED)


def _count(request: Request) -> int:
    text = request.query_params.get("k", "12")
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_NEIGHBORS:
        raise BadRequest(f"`k` must be a number from 1 to {MOST_NEIGHBORS}.")
    return int(text)


def _milliseconds(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 1)

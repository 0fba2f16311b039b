"""Changes of the index over HTTP, for those who have the token."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tf_detreg.files import readable
from tf_detreg.serving.bodies import body_of, fields_and_file
from tf_detreg.serving.gallery import Gallery
from tf_detreg.serving.predictor import Predictor
from tf_detreg.serving.problem import BadRequest, Problem

_MOST_ID = 1_000  # characters
_FILES = ("path", "run")  # fields that name files of this machine, which the page would show


class Writes:
    """`PUT /items/ID` and `DELETE /items/ID`.

    Args:
        predictor: Has the limits, and the threads.
        gallery: Returns what is changed, or raises where that cannot be; called in a thread.
        embedded: Returns the embedding (1, dim) of an image file.
    """

    def __init__(
        self,
        predictor: Predictor,
        gallery: Callable[[], Gallery],
        embedded: Callable[[bytes], Awaitable[np.ndarray]],
    ):
        self._predictor, self._gallery, self._embedded = predictor, gallery, embedded

    async def put(self, request: Request) -> Response:
        """Embed an image file and add it to the index, or replace the item of the same id.

        The image is the body, with metadata as JSON in the query's `metadata`; or both are fields of a form.
        """
        self._authorize(request)
        gallery, id = await self._predictor.in_thread(self._gallery), _id(request)
        async with body_of(request, self._predictor.settings.max_body, self._predictor.bodies) as body:
            fields, content = await fields_and_file(request.headers, body)
            metadata = _metadata(fields.get("metadata", request.query_params.get("metadata", "{}")))
            (embedding,) = await self._embedded(content)
        made_by = self._predictor.model.current.facts.get("fingerprint")
        try:
            replaced = await self._predictor.in_thread(gallery.put, id, embedding, metadata, made_by)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        item = await self._predictor.in_thread(gallery.number, id)
        return JSONResponse({"id": readable(id), "item": item, "replaced": replaced}, 200 if replaced else 201)

    async def delete(self, request: Request) -> Response:
        """Remove an item."""
        self._authorize(request)
        gallery, id = await self._predictor.in_thread(self._gallery), _id(request)
        try:
            removed = await self._predictor.in_thread(gallery.remove, id)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if not removed:
            raise Problem(404, "There is no item of this id.")
        return JSONResponse({"id": readable(id), "removed": True})

    def _authorize(self, request: Request) -> None:
        """Refuse who has not the token, in a time that does not depend on what was sent."""
        token = self._predictor.settings.write_token
        if token is None:
            raise Problem(
                403, "This server takes no changes. Its owner can allow them: write_token (--write-token-file)."
            )
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        known, sent = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (token, given.strip()))
        if not hmac.compare_digest(known, sent) or kind.lower() != "bearer":
            raise Problem(401, "Changes need the header `Authorization: Bearer TOKEN`, with this server's token.")


def _id(request: Request) -> str:
    id: str = request.path_params["id"]
    if not id or len(id) > _MOST_ID or "\0" in id:
        raise BadRequest(f"An item's id has 1 to {_MOST_ID} characters.")
    return id


def _metadata(text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise BadRequest('`metadata` must be JSON, an object such as {"label": "mug", "price": 7}.')
    if any(name in metadata for name in _FILES):
        raise BadRequest("`metadata` must not hold `path` or `run`: they name files of the server.")
    return metadata

"""TensorFlow Serving's REST API: predict, status, metadata."""

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf import json_format
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_detreg.serving import wire
from tf_detreg.serving.bodies import body_of
from tf_detreg.serving.model import Version
from tf_detreg.serving.predictor import Predictor
from tf_detreg.serving.problem import BadRequest


class _NameConvertor(StringConvertor):
    """A model's name in a path, which ends at the colon before a method."""

    regex = "[^/:]+"


register_url_convertor("servable", _NameConvertor())


class Rest:
    """The routes under `/v1/models`.

    Args:
        predictor: What runs the model.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def routes(self, wrap: Callable[..., Any]) -> list[Route]:
        """Return Starlette's routes; `wrap(function, name)` makes an endpoint of a function."""
        predict, status, metadata = (wrap(getattr(self, name), name) for name in ("predict", "status", "metadata"))
        made = []
        for of in ("/v1/models/{model:servable}", "/v1/models/{model:servable}/versions/{version:servable}"):
            made += [
                Route(f"{of}:predict", predict, methods=["POST"]),
                Route(f"{of}/metadata", metadata, methods=["GET"]),
                Route(of, status, methods=["GET"]),
            ]
        return made

    async def predict(self, request: Request) -> Response:
        """Return the outputs of a signature for rows (`instances`) or columns (`inputs`)."""
        version = self._version(request)
        async with body_of(request, self._predictor.settings.max_body, self._predictor.bodies) as body:
            signature, inputs, rows = await self._predictor.by_size(len(body), _read, body, version)
            outputs = await self._predictor.run(version, signature, inputs)
            size = sum(value.nbytes for value in outputs.values())
            return Response(
                await self._predictor.by_size(size, wire.answer, outputs, rows), media_type="application/json"
            )

    async def status(self, request: Request) -> Response:
        """Return which version is available."""
        version = self._version(request)
        state = {"version": str(version.number), "state": "AVAILABLE"}
        return JSONResponse({"model_version_status": [state | {"status": {"error_code": "OK", "error_message": ""}}]})

    async def metadata(self, request: Request) -> Response:
        """Return names, types and shapes of what each signature takes and gives."""
        version = self._version(request)
        signatures = {
            name: json_format.MessageToDict(
                definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            for name, definition in version.definitions.items()
        }
        spec = {"name": self._predictor.model.name, "signature_name": "", "version": str(version.number)}
        return JSONResponse({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}})

    def _version(self, request: Request) -> Version:
        number = request.path_params.get("version")
        if number is not None and not (number.isascii() and number.isdecimal() and len(number) < 19):
            raise BadRequest(f"Failed to convert version: {number[:40]} to numeric.")
        return self._predictor.version(request.path_params["model"], None if number is None else int(number))


def _read(body: bytes, version: Version) -> tuple[str, dict[str, np.ndarray], bool]:
    """Return signature, inputs and whether they came as rows, of a predict request."""
    signature, content, rows = wire.parse(body)
    if signature not in version.signatures:
        raise BadRequest(f'Serving signature name: "{signature[:100]}" not found in signature def')
    return signature, wire.arrays(content, rows, version.inputs(signature)), rows

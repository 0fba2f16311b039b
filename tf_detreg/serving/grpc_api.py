"""TensorFlow Serving's gRPC API: `Predict`, `GetModelMetadata` and `GetModelStatus`, from its own protos."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_detreg.serving.batching import Arrays
from tf_detreg.serving.model import Version
from tf_detreg.serving.predictor import Predictor
from tf_detreg.serving.problem import BadRequest, Problem
from tf_detreg.serving.settings import Settings
from tf_detreg.serving.wire import DEFAULT_SIGNATURE

logger = logging.getLogger(__name__)

T = TypeVar("T")
_SMALL = 100_000
_STREAMS = 128  # requests of one connection at a time
_CALLS = 128  # requests at a time, each of which is in memory as a whole before anything can be asked of it
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


@contextlib.asynccontextmanager
async def listening(predictor: Predictor, address: str) -> AsyncIterator[int]:
    """Answer gRPC while the block runs.

    Args:
        predictor: What runs the model.
        address: Where to listen, such as `127.0.0.1:8500`.

    Yields:
        The port.

    Raises:
        OSError: If the address is taken.
    """
    settings = predictor.settings
    server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=min(settings.max_connections, _CALLS))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(predictor), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(predictor), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"Cannot listen on {address} for gRPC. Choose another port (--grpc-port).") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=1)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_body),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header),
        ("grpc.absolute_max_metadata_size", settings.max_header),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.server_handshake_timeout_ms", int(1000 * settings.header_timeout)),
        # Without this a compressed message would grow in memory before its size is looked at.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # A client that vanished is noticed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.so_reuseport", 0),
    ]


class _Service:
    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def _answer(self, context: grpc.aio.ServicerContext, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns, or the gRPC error for what it raises; counted like an HTTP answer."""
        metrics, start = self._predictor.metrics, time.perf_counter()
        code, text = grpc.StatusCode.OK, ""
        try:
            async with asyncio.timeout(self._predictor.settings.timeout):
                return await work()
        except Problem as problem:
            code, text = _CODES.get(problem.code, grpc.StatusCode.INTERNAL), str(problem)
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            text = f"Gave up after {self._predictor.settings.timeout:g} seconds."
        except Exception:  # a client always gets an answer, and the log the reason
            logger.exception("%s failed", name)
            code, text = grpc.StatusCode.INTERNAL, "Internal error; the server's log says more."
        finally:
            metrics.seconds.labels(name).observe(time.perf_counter() - start)
            metrics.requests.labels(name, code.name).inc()
        await context.abort(code, text)
        raise AssertionError("abort raises")

    def _version(self, spec: Any) -> Version:
        if spec.version_label:
            raise BadRequest("Version labels are not supported; ask for a version by its number, or for none.")
        return self._predictor.version(spec.name, spec.version.value if spec.HasField("version") else None)

    def _fill(self, spec: Any, version: Version, signature: str = "") -> None:
        spec.name, spec.signature_name = self._predictor.model.name, signature
        spec.version.value = version.number


class _Prediction(_Service, prediction_service_pb2_grpc.PredictionServiceServicer):
    async def Predict(self, request: Any, context: Any) -> Any:
        return await self._answer(context, "grpc_predict", lambda: self._predict(request))

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:
        return await self._answer(context, "grpc_metadata", lambda: self._metadata(request))

    async def _predict(self, request: Any) -> predict_pb2.PredictResponse:
        version = self._version(request.model_spec)
        with self._predictor.bodies.growing() as add:
            add(request.ByteSize())
            return await self._outputs(request, version)

    async def _outputs(self, request: Any, version: Version) -> predict_pb2.PredictResponse:
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature not in version.signatures:
            raise BadRequest(f'Serving signature key "{signature[:100]}" not found.')
        arguments = request.inputs, version.inputs(signature), self._predictor.settings.max_body
        if request.ByteSize() < _SMALL:
            inputs = arrays(*arguments)
        else:
            inputs = await self._predictor.in_thread(arrays, *arguments)
        wanted = list(request.output_filter) or list(version.outputs(signature))
        unknown = set(wanted) - set(version.outputs(signature))
        if unknown:
            raise BadRequest(f"output tensor alias not found in signature: {sorted(unknown)[0][:100]}")
        outputs = await self._predictor.run(version, signature, inputs)
        answer = predict_pb2.PredictResponse()
        for name in wanted:
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        self._fill(answer.model_spec, version, signature)
        return answer

    async def _metadata(self, request: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
        version = self._version(request.model_spec)
        unknown = set(request.metadata_field) - {"signature_def"}
        if unknown or not request.metadata_field:
            raise BadRequest('`metadata_field` must be ["signature_def"].')
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in version.definitions.items():
            signatures.signature_def[name].CopyFrom(definition)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(signatures)
        self._fill(answer.model_spec, version)
        return answer


class _Models(_Service, model_service_pb2_grpc.ModelServiceServicer):
    async def GetModelStatus(self, request: Any, context: Any) -> Any:
        return await self._answer(context, "grpc_status", lambda: self._status(request))

    async def _status(self, request: Any) -> get_model_status_pb2.GetModelStatusResponse:
        version = self._version(request.model_spec)
        answer = get_model_status_pb2.GetModelStatusResponse()
        state = get_model_status_pb2.ModelVersionStatus
        answer.model_version_status.add(version=version.number, state=state.AVAILABLE)
        return answer


def arrays(inputs: Any, specs: dict[str, Any], limit: int) -> Arrays:
    """Return the inputs of a signature as arrays.

    Args:
        inputs: `TensorProto`s by name.
        specs: Tensor specs by name.
        limit: Bytes of an array. A few bytes of a `TensorProto` may stand for any number of equal values.

    Raises:
        Problem: If names, types, shapes or sizes do not fit.
    """
    if set(inputs) != set(specs):
        raise BadRequest(f"input tensor alias not found in signature, or missing: give {sorted(specs)}.")
    made = {name: _array(name, inputs[name], spec, limit) for name, spec in specs.items()}
    if len({len(value) for value in made.values()}) > 1:
        raise BadRequest("All inputs must have the same number of rows.")
    return made


def _array(name: str, proto: Any, spec: Any, limit: int) -> np.ndarray:
    if proto.dtype != spec.dtype.as_datatype_enum:
        raise BadRequest(f"Input {name!r} must be {spec.dtype.name}.")
    shape, wanted = [dim.size for dim in proto.tensor_shape.dim], spec.shape.as_list()
    fits = len(shape) == len(wanted) and all(want in (None, got) for want, got in zip(wanted, shape, strict=True))
    if proto.tensor_shape.unknown_rank or not fits or min(shape, default=0) < 0:
        raise BadRequest(f"Input {name!r} has the shape {shape[:16]}, expected {wanted}.")
    if math.prod(shape) * spec.dtype.size > limit:
        raise Problem(413, f"Input {name!r} is larger than {limit} bytes.")
    try:
        result: np.ndarray = tf.make_ndarray(proto)
        return result
    except (ValueError, TypeError) as error:
        raise BadRequest(f"Input {name!r} does not hold the values of its shape: {error}") from None

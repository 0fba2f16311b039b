"""Clients that are not ours get the same answers by REST and by gRPC: OpenVINO's `ovmsclient`, and TensorFlow Serving's
own stubs."""

import socket

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.conftest import listening, png
from tf_detreg.serving.app import create_app

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install tensorflow-serving-api")
apis = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="pip install tensorflow-serving-api")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]


@pytest.fixture(scope="module")
def addresses(served, gallery, settings):
    """(REST, gRPC) of one server."""
    port = free_port()
    application = create_app(served, gallery, settings, grpc_address=f"127.0.0.1:{port}")
    with listening(application, settings) as rest:
        yield rest.removeprefix("http://"), f"127.0.0.1:{port}"


@pytest.fixture(params=["rest", "grpc"])
def client(request, addresses):
    ovmsclient = pytest.importorskip("ovmsclient", reason="ovmsclient is not installed: pip install ovmsclient")
    if request.param == "rest":
        return ovmsclient.make_http_client(addresses[0])
    return ovmsclient.make_grpc_client(addresses[1])


@pytest.fixture
def stub(addresses):
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    with grpc.insecure_channel(addresses[1]) as channel:
        yield PredictionServiceStub(channel)


def request_for(name="colours", signature="serve_bytes", **inputs):
    request = apis.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(value)
    return request


def vectors(embedder, pictures):
    return np.asarray(embedder(pictures.astype(np.float32)))


def test_predict(client, embedder, pictures):
    wanted = vectors(embedder, pictures[:3])
    found = client.predict({"images": pictures[:3].astype(np.float32)}, "colours")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    found = client.predict({"images": pictures[:3].astype(np.float32)}, "colours", model_version=1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_status_and_metadata(client):
    (state,) = client.get_model_status("colours").values()
    assert state["state"] == "AVAILABLE"
    assert state["error_code"] == 0
    metadata = client.get_model_metadata("colours")
    if "model_spec" in metadata:  # of TensorFlow Serving's JSON this client makes nothing, and hands it on
        assert metadata["model_spec"]["version"] == "1"
        assert set(metadata["metadata"]["signature_def"]["signature_def"]) == {"serving_default", "serve_bytes"}
        return
    assert metadata["model_version"] == 1
    assert metadata["inputs"] == {"images": {"shape": [-1, 16, 16, 3], "dtype": "DT_FLOAT"}}
    assert metadata["outputs"]["embeddings"]["shape"] == [-1, 8]


def test_what_is_not_there(client, pictures):
    import ovmsclient.tfs_compat.base.errors as errors

    inputs = {"images": pictures[:1].astype(np.float32)}
    for ask in (
        lambda: client.predict(inputs, "other"),
        lambda: client.predict(inputs, "colours", model_version=7),
        lambda: client.get_model_status("other"),
        lambda: client.get_model_status("colours", model_version=7),
        lambda: client.get_model_metadata("other"),
    ):
        with pytest.raises(errors.ModelNotFoundError, match="Servable not found"):
            ask()
    for wrong in ({"pictures": inputs["images"]}, {"images": np.zeros((1, 4, 4, 3), np.float32)}):
        with pytest.raises(errors.InvalidInputError):
            client.predict(wrong, "colours")


def test_both_apis_answer_the_same_to_the_bit(addresses, stub, pictures):
    import base64
    import json
    import urllib.request

    contents = [png(picture) for picture in pictures[:4]] + [b"no image"]
    rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
    body = json.dumps({"signature_name": "serve_bytes", "inputs": rows}).encode()
    with urllib.request.urlopen(f"http://{addresses[0]}/v1/models/colours:predict", body) as answer:
        rest = json.load(answer)["outputs"]
    found = stub.Predict(request_for(image_bytes=tf.make_tensor_proto(contents)), timeout=20)
    np.testing.assert_array_equal(tf.make_ndarray(found.outputs["embeddings"]), np.float32(rest["embeddings"]))
    assert tf.make_ndarray(found.outputs["valid"]).tolist() == rest["valid"] == [True] * 4 + [False]
    assert found.model_spec.version.value == 1
    with urllib.request.urlopen(f"http://{addresses[0]}/v1/models/colours/metadata") as answer:
        rest = json.load(answer)["metadata"]["signature_def"]["signature_def"]["serve_bytes"]
    assert rest == client_metadata(stub)["serve_bytes"]
    assert rest["inputs"]["image_bytes"]["name"].endswith(":0")


def client_metadata(stub):
    from google.protobuf.json_format import MessageToDict
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "colours"
    answer = SignatureDefMap()
    stub.GetModelMetadata(request).metadata["signature_def"].Unpack(answer)
    form = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return {name: MessageToDict(definition, **form) for name, definition in answer.signature_def.items()}


def test_outputs_can_be_chosen_and_the_signature_left_out(stub, embedder, pictures):
    request = request_for(image_bytes=tf.make_tensor_proto([png(pictures[0])]))
    request.output_filter.append("valid")
    assert list(stub.Predict(request).outputs) == ["valid"]
    found = stub.Predict(request_for(signature="", images=tf.make_tensor_proto(pictures[:2].astype(np.float32))))
    got = tf.make_ndarray(found.outputs["embeddings"])
    np.testing.assert_allclose(got, vectors(embedder, pictures[:2]), atol=1e-5)
    empty = tf.make_tensor_proto(np.zeros((0, 16, 16, 3), np.float32))
    assert tf.make_ndarray(stub.Predict(request_for(signature="", images=empty)).outputs["embeddings"]).shape == (0, 8)


def refusals():
    proto = tf.make_tensor_proto
    yield "NOT_FOUND", request_for(name="other", image_bytes=proto([b""]))
    yield "INVALID_ARGUMENT", request_for(signature="serve_music", image_bytes=proto([b""]))
    yield "INVALID_ARGUMENT", request_for(pictures=proto([b""]))
    yield "INVALID_ARGUMENT", request_for()
    yield "INVALID_ARGUMENT", request_for(image_bytes=proto(1.0))
    yield "INVALID_ARGUMENT", request_for(image_bytes=proto([[b""]]))
    label = request_for(image_bytes=proto([b""]))
    label.model_spec.version_label = "stable"
    yield "INVALID_ARGUMENT", label
    output = request_for(image_bytes=proto([b""]))
    output.output_filter.append("music")
    yield "INVALID_ARGUMENT", output
    # A few bytes that stand for gigabytes, for no number at all, or for fewer values than they have.
    for size, code in ((10**9, "RESOURCE_EXHAUSTED"), (5000, "RESOURCE_EXHAUSTED"), (-1, "INVALID_ARGUMENT")):
        few = proto(np.zeros((1, 16, 16, 3), np.float32))
        few.tensor_content = b""
        few.float_val.append(0)
        few.tensor_shape.dim[0].size = size
        yield code, request_for(signature="", images=few)
    short = proto(np.zeros((2, 16, 16, 3), np.float32))
    short.tensor_content = short.tensor_content[:-3]
    yield "INVALID_ARGUMENT", request_for(signature="", images=short)
    many = proto([b"x"])
    many.tensor_shape.dim[0].size = 3000
    yield "RESOURCE_EXHAUSTED", request_for(image_bytes=many)
    yield "RESOURCE_EXHAUSTED", request_for(image_bytes=proto([bytes(2_000_001)]))


@pytest.mark.parametrize(("code", "request_"), refusals(), ids=lambda value: value if isinstance(value, str) else "")
def test_bad_requests_have_their_codes(stub, code, request_):
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(request_, timeout=20)
    assert raised.value.code().name == code
    assert raised.value.details()


def test_a_compressed_message_is_refused_before_it_grows(addresses):
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    request = request_for(image_bytes=tf.make_tensor_proto([bytes(10**8)]))
    channel = grpc.insecure_channel(addresses[1], compression=grpc.Compression.Gzip)
    with channel, pytest.raises(grpc.RpcError) as raised:
        PredictionServiceStub(channel).Predict(request)
    assert raised.value.code().name in ("UNIMPLEMENTED", "INTERNAL", "RESOURCE_EXHAUSTED")


def test_other_methods_are_unimplemented(stub):
    from tensorflow_serving.apis.classification_pb2 import ClassificationRequest

    with pytest.raises(grpc.RpcError) as raised:
        stub.Classify(ClassificationRequest())
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED

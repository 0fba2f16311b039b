"""The clients in examples/serving do what they say, against the local server and a gRPC stand-in."""

import concurrent.futures
import importlib.util
import pathlib
import socket
import socketserver
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.conftest import png

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "serving"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(pictures, tmp_path):
    (tmp_path / "red.png").write_bytes(png(pictures[7]))
    (tmp_path / "letter.jpg").write_text("no image")
    return [str(tmp_path / "red.png"), str(tmp_path / "letter.jpg")]


def test_rest_client(address, files, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rest_client.py", *files, "--model", "colours", "--address", address])
    example("rest_client").main()
    good, broken = capsys.readouterr().out.splitlines()
    assert "red.png: " in good
    assert broken.endswith("letter.jpg: not an image that can be read")


def test_load_script(address, pictures):
    host, port = address.removeprefix("http://").split(":")
    found = example("load").run(host, int(port), "colours", [png(pictures[0])], clients=4, seconds=0.5)
    assert set(found["answers"]) == {"200"}
    assert found["p50_ms"] <= found["p99_ms"]


def test_load_script_counts_what_goes_wrong(address, pictures):
    host, port = address.removeprefix("http://").split(":")
    load = example("load")
    assert set(load.run(host, int(port), "other", [b"x"], clients=2, seconds=0.1)["answers"]) == {"404"}
    with socket.create_server((host, 0)) as unused:
        closed = unused.getsockname()[1]
    assert set(load.run(host, closed, "colours", [b"x"], clients=2, seconds=0.1)["answers"]) == {
        "ConnectionRefusedError"
    }


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", "200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "IncompleteReadError"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "ValueError"),
    ],
)
def test_load_script_with_servers_that_close_the_connection(answer, counted):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            found = example("load").run(*server.server_address, "colours", [b"x"], clients=2, seconds=0.2)
        finally:
            server.shutdown()
            thread.join()
    assert set(found["answers"]) == {counted}


def test_grpc_client(folder, embedder, pictures):
    """A stand-in with TensorFlow Serving's own service definition, around the exported model."""
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    signature = tf.saved_model.load(folder / "1").signatures["serve_bytes"]

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            assert (request.model_spec.name, request.model_spec.signature_name) == ("colours", "serve_bytes")
            contents = tf.make_ndarray(request.inputs["image_bytes"])
            answer = predict_pb2.PredictResponse()
            for name, value in signature(image_bytes=tf.constant(contents)).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return answer

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        contents = [png(pictures[3]), b"no image"]
        embeddings, valid = example("grpc_client").embed(contents, "colours", f"127.0.0.1:{port}")
    finally:
        server.stop(None)
    assert valid.tolist() == [True, False]
    np.testing.assert_allclose(embeddings[0], embedder(pictures[3:4].astype(np.float32))[0], atol=1e-5)

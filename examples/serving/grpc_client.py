"""Embed image files through TensorFlow Serving's gRPC API (about half the bytes of REST).

pip install 'tf-detreg[export]'        # brings tensorflow-serving-api
python examples/serving/grpc_client.py photo.jpg other.png
"""

import argparse
import pathlib


def request_for(contents: list[bytes], model: str):
    """The `PredictRequest` for some encoded images."""
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serve_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(contents, tf.string, [len(contents)]))
    return request


def embed(contents: list[bytes], model: str, address: str = "127.0.0.1:8500"):
    """Embeddings `(B, dim)` and validity `(B,)`."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    with grpc.insecure_channel(address) as channel:
        answer = PredictionServiceStub(channel).Predict(request_for(contents, model), timeout=30)
    return tf.make_ndarray(answer.outputs["embeddings"]), tf.make_ndarray(answer.outputs["valid"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=pathlib.Path)
    parser.add_argument("--model", default="embedder", help="the model's name (default: embedder)")
    parser.add_argument("--address", default="127.0.0.1:8500")
    given = parser.parse_args()
    embeddings, valid = embed([path.read_bytes() for path in given.images], given.model, given.address)
    for path, row, good in zip(given.images, embeddings, valid, strict=True):
        print(f"{path}: {row[:6].round(3)} …" if good else f"{path}: not an image that can be read")


if __name__ == "__main__":
    main()

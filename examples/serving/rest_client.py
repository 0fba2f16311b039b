"""Embed image files through the REST predict API, of TensorFlow Serving or of `tf-detreg serve` alike.

python examples/serving/rest_client.py --model embedder photo.jpg other.png
"""

import argparse
import base64
import json
import pathlib
import urllib.request


def embed(contents: list[bytes], model: str, address: str = "http://127.0.0.1:8501") -> list[dict]:
    """One `{"embeddings": […], "valid": true}` an image."""
    rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
    body = json.dumps({"signature_name": "serve_bytes", "instances": rows}).encode()
    request = urllib.request.Request(f"{address}/v1/models/{model}:predict", body)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["predictions"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=pathlib.Path)
    parser.add_argument("--model", default="embedder", help="the model's name (default: embedder)")
    parser.add_argument("--address", default="http://127.0.0.1:8501")
    given = parser.parse_args()
    found = embed([path.read_bytes() for path in given.images], given.model, given.address)
    for path, row in zip(given.images, found, strict=True):
        start = ", ".join(f"{value:+.3f}" for value in row["embeddings"][:6])
        print(f"{path}: {start}, …" if row["valid"] else f"{path}: not an image that can be read")


if __name__ == "__main__":
    main()

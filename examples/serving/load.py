"""Put a server under load: many clients at once, each sending one image after the other.

    python examples/serving/load.py --model embedder --clients 32 --seconds 60 photo.jpg

Works with TensorFlow Serving and with `tf-detreg serve`. Point it at servers of your own only.
"""

import argparse
import base64
import collections
import http.client
import json
import pathlib
import threading
import time


def run(host: str, port: int, model: str, contents: list[bytes], clients: int, seconds: float) -> dict:
    """Counts by answer, images a second, and latencies in milliseconds."""
    bodies = [
        json.dumps({"signature_name": "serve_bytes", "instances": [{"b64": base64.b64encode(content).decode()}]})
        for content in contents
    ]
    answers, latencies, lock = collections.Counter(), [], threading.Lock()
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        turn = number
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                connection.request("POST", f"/v1/models/{model}:predict", bodies[turn % len(bodies)])
                response = connection.getresponse()
                response.read()
                answer = str(response.status)
            except OSError as error:
                answer = type(error).__name__
                connection.close()
            with lock:
                answers[answer] += 1
                latencies.append(1000 * (time.perf_counter() - start))
            turn += 1
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.monotonic() - began
    latencies.sort()
    return {
        "answers": dict(answers),
        "images_per_second": round(answers["200"] / taken, 1),
        **{f"p{share}_ms": round(latencies[len(latencies) * share // 100], 1) for share in (50, 95, 99)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=pathlib.Path)
    parser.add_argument("--model", default="embedder", help="the model's name (default: embedder)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    contents = [path.read_bytes() for path in given.images]
    print(json.dumps(run(given.host, given.port, given.model, contents, given.clients, given.seconds), indent=2))


if __name__ == "__main__":
    main()

"""Put a server under load: many clients at once, each sending one image after the other.

    python examples/serving/load.py --model embedder --clients 32 --seconds 60 photo.jpg

Works with TensorFlow Serving and with `tf-detreg serve`. Point it at servers of your own only.
"""

import argparse
import asyncio
import base64
import collections
import json
import pathlib
import re
import time

TIMEOUT = 60  # seconds for one answer


def run(host: str, port: int, model: str, contents: list[bytes], clients: int, seconds: float) -> dict:
    """Counts by answer, images a second, and latencies in milliseconds."""
    requests = [predict_request(host, port, model, content) for content in contents]
    answers, latencies = collections.Counter(), []

    async def client(number: int) -> None:
        connection, turn = Connection(host, port), number
        while time.monotonic() < end:
            start = time.perf_counter()
            answers[await connection.ask(requests[turn % len(requests)])] += 1
            latencies.append(1000 * (time.perf_counter() - start))
            turn += 1
        connection.close()

    async def together() -> None:
        await asyncio.gather(*(client(number) for number in range(clients)))

    began = time.monotonic()
    end = began + seconds
    asyncio.run(together())
    taken = time.monotonic() - began
    latencies.sort()
    return {
        "answers": dict(answers),
        "images_per_second": round(answers["200"] / taken, 1),
        **{f"p{share}_ms": round(latencies[len(latencies) * share // 100], 1) for share in (50, 95, 99)},
    }


def predict_request(host: str, port: int, model: str, content: bytes) -> bytes:
    """The HTTP request for one image, made once: a load script should leave the processor to the server."""
    rows = [{"b64": base64.b64encode(content).decode()}]
    body = json.dumps({"signature_name": "serve_bytes", "instances": rows})
    head = f"POST /v1/models/{model}:predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Connection:
    """A keep-alive connection, opened when it is needed, that reads no more of an answer than it has to."""

    def __init__(self, host: str, port: int):
        self.address = (host, port)
        self.reader = self.writer = None

    async def ask(self, request: bytes) -> str:
        """The answer's status, or the name of the error that came instead."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._exchange(request)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            return type(error).__name__

    async def _exchange(self, request: bytes) -> str:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"\r\ncontent-length: *(\d+)", head)
        if not length:
            raise ValueError("The answer has no Content-Length.")
        await self.reader.readexactly(int(length[1]))
        if "\r\nconnection: close" in head:
            self.close()
        return head.split()[1]

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


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

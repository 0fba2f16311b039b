"""A small model, its index and the application around them."""

import contextlib
import io
import threading
import time

import keras
import numpy as np
import pytest

from tf_detreg import export, heads, retrieval

pytest.importorskip("starlette", reason="the extra `serve` is not installed: pip install -e '.[serve]'")


def png(image):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures():
    """Pictures of 8 plain colours, 5 of each with a little noise."""
    rng = np.random.default_rng(0)
    colours = np.array([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(8)]) * 200 + 25
    flat = np.repeat(colours, 5, axis=0)[:, None, None, :] + rng.integers(-20, 21, (40, 4, 4, 3))
    return np.kron(flat, np.ones((1, 4, 4, 1))).astype(np.uint8)


@pytest.fixture(scope="session")
def embedder():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten(), heads.Linear(8)]
    return keras.Sequential(layers, name="colours")


@pytest.fixture(scope="session")
def folder(embedder, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "colours"
    export.saved_model(embedder, path)
    return path


@pytest.fixture(scope="session")
def index(embedder, pictures, tmp_path_factory):
    """An index of files in a folder with a long name."""
    folder = tmp_path_factory.mktemp("PICTURES of a shop in the summer of last year")
    names = ["black", "red", "green", "yellow", "blue", "pink", "cyan", "white"]
    facts = []
    for row, picture in enumerate(pictures):
        path = folder / f"item {row}.png"
        path.write_bytes(png(np.kron(picture, np.ones((4, 4, 1)))))
        facts.append({"label": names[row // 5], "path": str(path), "size": "small"})
    vectors = np.asarray(embedder(pictures.astype(np.float32)))
    return retrieval.Index(vectors, [f"item {row}" for row in range(40)], facts, export.fingerprint(embedder))


@pytest.fixture(scope="session")
def gallery(index):
    from tf_detreg.serving.gallery import Gallery

    return Gallery(index)


@pytest.fixture(scope="session")
def settings():
    from tf_detreg.serving.app import Settings

    return Settings(max_body=2_000_000, poll=0, header_timeout=1.0, max_connections=60)


@pytest.fixture(scope="session")
def served(folder):
    """The model, loaded once, which takes seconds."""
    from tf_detreg.serving.model import ModelDirectory

    return ModelDirectory(folder)


@pytest.fixture(scope="session")
def app(served, gallery, settings):
    from tf_detreg.serving.app import create_app

    return create_app(served, gallery, settings)


@contextlib.contextmanager
def listening(app, settings):
    """The address at which an application answers, in a thread of its own, as `serve` starts it."""
    import uvicorn

    from tf_detreg.serving.server import http_config

    server = uvicorn.Server(http_config(app, settings, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def address(app, settings):
    """Where the application listens."""
    with listening(app, settings) as found:
        yield found

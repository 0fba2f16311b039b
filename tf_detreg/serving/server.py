"""`tf-detreg serve`: the local server, for development and for showing."""

import os
from collections.abc import Sequence

import numpy as np


def serve(
    directory: str | os.PathLike,
    index: "str | os.PathLike | object | None" = None,
    *,
    name: str | None = None,
    pictures: Sequence | np.ndarray | None = None,
    host: str = "127.0.0.1",
    port: int = 8501,
    max_body: int = 32_000_000,
    timeout: float = 30.0,
) -> None:
    """Serve an exported model until interrupted: TensorFlow Serving's REST predict API and a visual search page.

    `POST /v1/models/NAME:predict`, `GET /v1/models/NAME`, `GET /v1/models/NAME/metadata` answer as TensorFlow Serving
    does; `/` is the search page, `/search` its interface, `/health` and `/metrics` are for those who watch. A newer
    version that appears in the folder is taken over while the old one serves on.

    Args:
        directory: The model's folder, with numbered versions, from `export.saved_model`.
        index: A `retrieval.Index`, or the folder of a saved one, for the search page.
        name: The model's name in the API. Default: the folder's.
        pictures: What to show of the index's items: file names, or uint8 images. Default: `path` in their metadata.
        host: Address to listen on. Default `127.0.0.1`: this machine alone.
        port: Default 8501, TensorFlow Serving's REST port.
        max_body: Bytes of a request. Default 32 MB.
        timeout: Seconds until a request is given up. Default 30.

    Raises:
        ValueError: If the folder holds no model, or the index was made by another one.
        ImportError: If the extra `serve` is not installed.
    """
    try:
        import orjson  # noqa: F401
        import uvicorn
        from prometheus_client import CollectorRegistry  # noqa: F401
        from starlette.applications import Starlette  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The server needs the extra `serve` ({error}): pip install 'tf-detreg[serve]'.") from error
    from tf_detreg.retrieval.index import Index
    from tf_detreg.serving.app import Settings, create_app
    from tf_detreg.serving.gallery import Gallery
    from tf_detreg.serving.model import ModelDirectory

    model = ModelDirectory(directory, name)
    index = Index.load(index) if isinstance(index, str | os.PathLike) else index
    gallery = None if index is None else Gallery(index, pictures)
    app = create_app(model, gallery, Settings(max_body=max_body, timeout=timeout))
    print(f"Search page: http://{host}:{port}/   REST: http://{host}:{port}/v1/models/{model.name}:predict", flush=True)
    quiet = {"log_level": "warning", "access_log": False, "proxy_headers": False, "server_header": False}
    uvicorn.run(app, host=host, port=port, timeout_keep_alive=15, **quiet)

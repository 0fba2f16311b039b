"""`tf-detreg serve`: the local server, for development and for showing."""

import functools
import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import extras
from tf_detreg.serving.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp


GRPC_PORT = 8500  # TensorFlow Serving's


def serve(
    directory: str | os.PathLike[str],
    index: "str | os.PathLike[str] | object | None" = None,
    *,
    name: str | None = None,
    pictures: Sequence[Any] | np.ndarray | None = None,
    host: str = "127.0.0.1",
    port: int = 8501,
    grpc_port: int | None = None,
    allowed_hosts: Sequence[str] | None = None,
    cors_origins: Sequence[str] = (),
    max_body: int = 32_000_000,
    timeout: float = 30.0,
    write_token: str | None = None,
) -> None:
    """Serve an exported model until interrupted: TensorFlow Serving's predict API and a visual search page.

    `POST /v1/models/NAME:predict`, `GET /v1/models/NAME`, `GET /v1/models/NAME/metadata` and, over gRPC, `Predict`,
    `GetModelMetadata` and `GetModelStatus` answer as TensorFlow Serving does; `/` is the search page, `/search` its
    interface, `/health` and `/metrics` are for those who watch. A newer version that appears in the folder is taken
    over while the old one serves on; where the one that serves is removed, the newest that is left takes its place.

    Args:
        directory: The model's folder, with numbered versions, from `export.saved_model`.
        index: For the search page: an `index.Index`, or the folder of a saved one; or `index.Shards`, or the folder of
            all shards of one, which are searched together. Default none.
        name: The model's name in the API. Default: the folder's.
        pictures: What to show of the index's items: file names, or uint8 images. Default `path` in their metadata.
        host: Address to listen on. Default 127.0.0.1: this machine alone.
        port: Default 8501, TensorFlow Serving's REST port.
        grpc_port: For gRPC; 0 for none. Default 8500, TensorFlow Serving's, where that port is free.
        allowed_hosts: Names under which clients reach the server, as in `Settings`; its address is always one. Default
            `host`, the loopback names and, where `host` is not a loopback address, this machine's name.
        cors_origins: Origins whose pages may read the answers, as in `Settings`. Default none.
        max_body: Bytes of a request. Default 32 MB.
        timeout: Seconds until a request is given up. Default 30.
        write_token: Lets clients that send it change the index with `PUT` and `DELETE /items/ID`, as in `Settings`.
            Default None: nobody can.

    Raises:
        ValueError: If the folder holds no model, or the index was made by another one.
        ImportError: If the extra `serve` is not installed.
        OSError: If a port is taken.
    """
    with extras.needed("The server"):
        import h11  # noqa: F401
        import orjson  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
        from prometheus_client import CollectorRegistry  # noqa: F401
        from starlette.applications import Starlette  # noqa: F401
    from tf_detreg.index import sharding
    from tf_detreg.serving.app import Settings, create_app
    from tf_detreg.serving.gallery import Gallery
    from tf_detreg.serving.model import ModelDirectory

    settings = Settings(
        max_body=max_body,
        max_bodies=max(max_body, Settings.max_bodies),
        timeout=timeout,
        allowed_hosts=host_names(host) if allowed_hosts is None else allowed_hosts,
        cors_origins=cors_origins,
        write_token=write_token,
    )
    grpc_address = _grpc_address(host, grpc_port)
    # First what is quick: a model takes seconds to load.
    opened: Any = sharding.load(index) if isinstance(index, str | os.PathLike) else index
    model = ModelDirectory(directory, name)
    gallery = None if opened is None else Gallery(opened, pictures)
    app = create_app(model, gallery, settings, grpc_address=grpc_address)
    shown = f"http://{_bracketed(host)}:{port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Say where the server listens once it does."""
            await super().startup(sockets)
            print(f"Ready       {shown}/    (open it in a browser; Ctrl-C ends the server)", flush=True)
            print(f"REST        {shown}/v1/models/{model.name}:predict", flush=True)
            print(f"gRPC        {grpc_address or 'off'}", flush=True)

    Server(http_config(app, settings, host=host, port=port)).run()


def http_config(app: "ASGIApp", settings: Settings, **options: Any) -> "uvicorn.Config":
    """Return uvicorn's configuration for the application, with the limits that belong to connections.

    Args:
        app: From `create_app`.
        settings: The same that the application has.
        options: More of uvicorn's, such as `host` and `port`.

    Returns:
        A `uvicorn.Config`.
    """
    import uvicorn

    from tf_detreg.serving.protocol import LimitedProtocol

    return uvicorn.Config(
        app,
        http=functools.partial(LimitedProtocol, settings=settings),  # type: ignore[arg-type]  # as good as the class
        h11_max_incomplete_event_size=settings.max_header,
        ws="none",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        loop="asyncio",
        **options,
    )


def host_names(host: str) -> list[str]:
    """Return the names that a `Host` header may have where the server listens on `host`.

    Example:
        >>> host_names("127.0.0.1")
        ['localhost', '127.0.0.1', '[::1]']
    """
    names = [*LOOPBACK]
    if _bracketed(host) not in names:
        names.append(_bracketed(host))
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return names if local else [*names, socket.gethostname(), socket.getfqdn()]


def _bracketed(host: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _grpc_address(host: str, port: int | None) -> str | None:
    """Return where gRPC is answered; None for nowhere.

    Raises:
        OSError: If a port that was asked for is taken.
        ImportError: If gRPC is asked for and not installed.
    """
    if port == 0:
        return None
    try:
        with extras.needed("gRPC"):
            import grpc  # noqa: F401
            from tensorflow_serving.apis import prediction_service_pb2_grpc  # noqa: F401
    except ImportError:
        if port is None:
            return None
        raise
    asked = GRPC_PORT if port is None else port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, asked), family=family):
            pass
    except OSError as error:
        if port is None:
            return None
        raise OSError(error.errno, f"Cannot listen for gRPC ({error.strerror}); choose another `grpc_port`") from error
    return f"{_bracketed(host)}:{asked}"

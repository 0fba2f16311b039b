"""Limits of the server: what a stranger may send, how much of it, and how slowly."""

import dataclasses
import re
from collections.abc import Sequence

from tf_detreg import checks

_TOKEN = re.compile(r"[!-~]{16,1000}")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits of the server.

    Args:
        max_body: Bytes of a request, also after decompression. Default 32 MB.
        max_bodies: Bytes of all requests that are read or answered at a time (then 503). Default 256 MB.
        max_pixels: Pixels that the encoded images of one request declare together (then 413), and that are decoded at
            a time: further requests wait. Default 256 million.
        timeout: Seconds until a request is given up. Default 30.
        batch_rows: Rows that run together. Default 64.
        waiting_rows: Rows that may wait (then the answer is 503) and rows of one request (then 413). Default 2048.
        workers: Model calls at a time. Default 2.
        poll: Seconds between looks for another version; 0 for none. Default 5.
        max_header: Bytes of a request's header (then 431). Default 16 KiB.
        max_fields: Fields of a request's header (then 431). Default 100.
        header_timeout: Seconds in which a header must be complete (then 408). Default 10.
        keep_alive: Seconds until an idle connection is closed. Default 15.
        max_connections: Connections at a time (then 503). Default 512.
        allowed_hosts: Names that the `Host` header may have, without a port: `"*.example.com"` stands for every
            subdomain, `"*"` for any name. Other names are refused: a web page could otherwise read the gallery by
            letting its own name resolve to this machine (DNS rebinding). Default: the loopback names.
        cors_origins: Origins such as `"https://example.com"` whose pages may read the answers; `"*"` for all. Default
            none.
        write_token: What a client has to send as `Authorization: Bearer TOKEN` to change the index, at least 16 visible
            ASCII characters. Default None: nobody can.

    Raises:
        ValueError: If a limit is not positive, or `max_bodies` is less than `max_body`.

    Example:
        >>> Settings(timeout=5).max_body
        32000000
    """

    max_body: int = 32_000_000
    max_bodies: int = 256_000_000
    max_pixels: int = 256_000_000
    timeout: float = 30.0
    batch_rows: int = 64
    waiting_rows: int = 2048
    workers: int = 2
    poll: float = 5.0
    max_header: int = 16_384
    max_fields: int = 100
    header_timeout: float = 10.0
    keep_alive: float = 15.0
    max_connections: int = 512
    allowed_hosts: Sequence[str] = LOOPBACK
    cors_origins: Sequence[str] = ()
    write_token: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "write_token":
                if value is not None and not (isinstance(value, str) and _TOKEN.fullmatch(value)):
                    raise checks.invalid(
                        "write_token",
                        "be at least 16 visible ASCII characters, without spaces",
                        "another, which is not shown here",
                    )
                continue
            if isinstance(field.default, tuple):
                if isinstance(value, str) or not all(isinstance(name, str) for name in value):
                    raise ValueError(f"`{field.name}` must be a list of names; received {value!r}.")
            elif field.name == "poll":
                checks.not_negative(field.name, value)
            else:
                checks.positive(field.name, value)
        if self.max_bodies < self.max_body:
            raise checks.invalid(
                "max_bodies", f"be at least `max_body`, {self.max_body}", checks.shown(self.max_bodies)
            )

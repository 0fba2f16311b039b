"""What every HTTP request passes first: the names that the server answers to, and the size of the header."""

import re
from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


class Guard:
    """An ASGI application that refuses foreign hosts and large headers before another one sees the request.

    Args:
        application: What answers the others.
        allowed_hosts: As in `Settings`.
        max_header: Bytes of all header fields and the target. A parser that has read a whole header in one piece
            does not apply its own limit.
        max_fields: How many header fields.
    """

    def __init__(self, application: ASGIApp, allowed_hosts: Sequence[str], max_header: int, max_fields: int) -> None:
        self._application, self._max_header, self._max_fields = application, max_header, max_fields
        self._names = {name.lower().rstrip(".") for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                # No answer, also none with a user's text in it, may be taken for another type.
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._application)(scope, receive, answer)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size > self._max_header:
            return JSONResponse({"error": f"The header is larger than {self._max_header} bytes."}, 431)
        if len(scope["headers"]) > self._max_fields:
            return JSONResponse({"error": f"The header has more than {self._max_fields} fields."}, 431)
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        # A name can be made to resolve to this machine; the address that the connection came to cannot be pretended.
        address = (scope.get("server") or ("",))[0]
        # Old clients send none; browsers, which a foreign page can use, always do.
        if len(hosts) > 1 or not all(self.allows(host, address) for host in hosts):
            text = (
                "This server does not answer to this host name. Its owner can allow it: allowed_hosts (--allow-host)."
            )
            return JSONResponse({"error": text}, 400)
        return None

    def allows(self, host: bytes, address: str = "") -> bool:
        """Return whether a `Host` header names this server.

        Args:
            host: The header.
            address: The address that the connection came to, which is allowed too.

        Example:
            >>> guard = Guard(None, ["localhost", "*.example.com"], 1000, 100)
            >>> [guard.allows(host) for host in (b"localhost:8501", b"a.example.com", b"example.com", b"evil.test")]
            [True, True, False, False]
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].decode().lower().rstrip(".")
        if address and name in (address, f"[{address}]"):
            return True
        return any(
            known in ("*", name) or (known.startswith("*.") and name.endswith(known[1:])) for known in self._names
        )

"""HTTP on one connection: uvicorn's own protocol with a deadline for everything that a client can leave unfinished."""

import asyncio
import http
import json
import re
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tf_detreg.serving.settings import Settings

LINGER = 2.0  # seconds in which a refused client may still send, so that it can read the answer before the end
FREE_CHUNKS = 1000  # of a body, which may be of any size
LEAST_CHUNK = 64  # bytes that the chunks of a body have on average, beyond those: each costs as much as a kilobyte
_HEADER_END = re.compile(rb"\n\r?\n")


class _Connection(h11.Connection):
    """h11's state of a connection, which refuses bodies in tiny chunks: they would keep it busy for long."""

    _chunks = _size = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._size = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._size += len(event.data)
            if self._chunks > FREE_CHUNKS and self._size < LEAST_CHUNK * self._chunks:
                raise h11.RemoteProtocolError("tiny chunks")
        return event


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol on `h11`, which reads headers in linear time and up to a limit, with limits on time.

    A connection is in one of four states, each with its own deadline: its next header has begun (or none has come
    yet), a request is being answered, it is idle between two requests, or it is refused and being closed.

    Args:
        settings: The limits.
        arguments: uvicorn's.
        named: uvicorn's.
    """

    def __init__(self, *arguments: Any, settings: Settings, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Connection(h11.SERVER, settings.max_header)
        self._settings = settings
        self._state: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # never a datagram
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse(503, "Too many connections.")
        else:
            self._enter("header", self._settings.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter("lost", None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._state == "closing":
            return
        if self.conn.their_state is h11.IDLE and self._is_too_large(data):
            self._refuse_header()
            return
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        self._state = None  # the next request, which may have come with this one, gets a time of its own
        super().on_response_complete()
        self._follow()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in JSON."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if len(self.conn.trailing_data[0]) > self._settings.max_header:
                self._refuse_header()
            else:
                self._refuse(400, msg)
        elif cycle.response_started:
            self.transport.abort()
        else:
            cycle.disconnected = True  # the application gives up, and what it still answers is dropped
            cycle.message_event.set()
            self._refuse(400, f"The body is no valid HTTP, or comes in chunks of fewer than {LEAST_CHUNK} bytes.")

    def _is_too_large(self, data: bytes) -> bool:
        """Return whether a header is, before any of it is parsed."""
        most = self._settings.max_header
        begun = self.conn.trailing_data[0] + data[: most + 4]
        return len(begun) > most and _HEADER_END.search(begun) is None

    def _refuse_header(self) -> None:
        self._refuse(431, f"The header is larger than {self._settings.max_header} bytes.")

    def _follow(self) -> None:
        """Enter the state that h11 is in now."""
        if self._state in ("closing", "lost") or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The application gives up after `timeout`; as long again may the client take to read the answer.
            self._enter("request", 2 * self._settings.timeout)
        elif self.conn.their_state is h11.SEND_BODY:
            self._close_soon()  # answered before all was read, as with a body that is too large
        elif self.conn.trailing_data[0] or self.cycle is None:
            self._enter("header", self._settings.header_timeout)
        else:
            self._enter("idle", self._settings.keep_alive)

    def _enter(self, state: str, seconds: float | None) -> None:
        if state == self._state:
            return
        self._state = state
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._state == "header" and self.conn.trailing_data[0]:
            self._refuse(408, f"The header was not complete after {self._settings.header_timeout:g} seconds.")
        elif self._state in ("header", "idle"):
            self.transport.close()
        else:
            self.transport.abort()

    def _refuse(self, code: int, text: str) -> None:
        body = json.dumps({"error": text}).encode()
        head = f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self._close_soon()

    def _close_soon(self) -> None:
        """Close our half, drop what still comes, and end after a moment."""
        self._unset_keepalive_if_required()
        self._enter("closing", LINGER)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

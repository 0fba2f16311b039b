"""Reading what a request carries, no further than the limit: plain, compressed, or as a form."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from tf_detreg.serving.budget import Budget
from tf_detreg.serving.problem import BadRequest, Problem

_MOST_FIELDS = 16  # of a form, beside its one file


@contextlib.asynccontextmanager
async def body_of(request: Request, limit: int, budget: Budget) -> AsyncIterator[bytes]:
    """Yield the request's body, decompressed where it says that it is compressed.

    Args:
        request: The request.
        limit: Bytes, before and after decompression.
        budget: Of the bytes of all requests; the body is part of it until the block ends.

    Raises:
        Problem: 413, if it is larger, or says so; 415, if it is compressed in a way that is not known; 400, if it is
            damaged; 503, if all requests together hold too much.
        ClientDisconnect: If the client left.
    """
    with budget.growing() as add:
        yield await _read(request, limit, add)


async def _read(request: Request, limit: int, add: Callable[[int], None]) -> bytes:
    declared = request.headers.get("content-length", "0")
    _refuse_larger(int(declared) if len(declared) < 20 and declared.isdecimal() else 0, limit)
    parts, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part, more = message.get("body", b""), message.get("more_body", False)
        parts.append(part)
        size += len(part)
        _refuse_larger(size, limit)
        add(len(part))
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Problem(415, "Send the body as it is, or with Content-Encoding: gzip.")
    content = await asyncio.to_thread(gunzip, body, limit)
    add(len(content))
    return content


def gunzip(body: bytes, limit: int) -> bytes:
    """Decompress gzip, no further than a limit.

    Raises:
        Problem: 413, if it grows beyond the limit; 400, if it is damaged.

    Example:
        >>> import gzip
        >>> gunzip(gzip.compress(b"text"), 100)
        b'text'
    """
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not valid gzip: {error}") from None
    _refuse_larger(len(content), limit)
    if not reader.eof or reader.unused_data:
        raise BadRequest("The body is not valid gzip: it must be one stream, and whole.")
    return content


async def uploaded(headers: Headers, body: bytes) -> bytes:
    """Return the one file of a `multipart/form-data` body; any other body is the file itself.

    Raises:
        BadRequest: If the form is damaged, or does not hold exactly one file.
    """
    return (await fields_and_file(headers, body))[1]


async def fields_and_file(headers: Headers, body: bytes) -> tuple[dict[str, str], bytes]:
    """Return the texts of a `multipart/form-data` body by name, and its one file; any other body is the file itself.

    Raises:
        BadRequest: If the form is damaged, or does not hold exactly one file.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        return {}, body

    async def once() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(headers, once(), max_files=1, max_fields=_MOST_FIELDS)  # type: ignore[arg-type]  # Headers will do
        form = await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"The form cannot be read: {error.message}") from None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise BadRequest("The form must hold exactly one file, such as: curl -F image=@photo.jpg")
        return {name: value for name, value in form.multi_items() if isinstance(value, str)}, await files[0].read()


def _refuse_larger(size: int, limit: int) -> None:
    if size > limit:
        raise Problem(413, f"The request is larger than {limit} bytes.")

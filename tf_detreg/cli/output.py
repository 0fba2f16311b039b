"""Standard output and error that stop no work, whoever reads them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """Keep the command running where its output cannot be written, while the block runs.

    A reader such as `head` that has gone, a full disk under a log or a stream that was closed from the start end
    neither a training of hours nor an export; from then on the output is dropped. Characters that a terminal cannot
    show are written as escapes.
    """
    _open_standard_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_steady(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _open_standard_streams() -> None:
    """Take up the numbers 0, 1 and 2 where they are closed.

    The next file that anybody opened would get the number, and be filled with what C++ code logs.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _steady(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    try:
        number = stream.fileno()
        stream.flush()
    except (OSError, ValueError, AttributeError):
        return stream  # a notebook's or a test's, without a file below
    raw = io.BufferedWriter(_Dropping(number, "w", closefd=False))
    return io.TextIOWrapper(
        raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=True, write_through=True
    )


class _Dropping(io.FileIO):
    """A file that writes into nothing from the first failure on."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            # Also for what C++ code writes, and for Python, which flushes once more at its end.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return memoryview(data).nbytes

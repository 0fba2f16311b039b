"""Writing files so that no reader ever finds half of one: a temporary name beside the target, then a rename."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield a temporary path that replaces `path` when the block ends well, and vanishes when it does not.

    Works for files and for folders. A folder that is already there is moved aside first and removed last, so that a
    failure at any point leaves either the old or the new one whole.

    Args:
        path: The file or folder to write. Missing parent folders are made.

    Yields:
        A path beside it, with the same ending, that does not exist yet.

    Raises:
        OSError: If the directory cannot be written to; the message says which.

    Example:
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with replacing(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole or not at all")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']
    """
    path = pathlib.Path(path)
    scratch = _scratch_beside(path)
    try:
        yield scratch / path.name
        if (scratch / path.name).is_file() and path.is_dir():
            raise _is_a_folder(path)
        if (scratch / path.name).is_dir() and path.exists():
            path.rename(scratch / "replaced")
        (scratch / path.name).replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise now what writing a file there would raise in the end, after hours of work perhaps.

    Args:
        path: The file that is going to be written. Missing parent folders are made.

    Raises:
        OSError: If it is a folder, or lies where nothing can be written.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise _is_a_folder(path)
    _scratch_beside(path).rmdir()


def _scratch_beside(path: pathlib.Path) -> pathlib.Path:
    """Return a new folder for what is half written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A part of the name will do: the whole of a long one and what is added would be too long.
        return pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name[:32]}.", dir=path.parent))
    except OSError as error:
        raise OSError(error.errno, f"Cannot write here ({error.strerror}). Choose another place", str(path)) from error


def _is_a_folder(path: pathlib.Path) -> OSError:
    return IsADirectoryError(errno.EISDIR, "A folder is in the way of this file. Choose another name", str(path))


def write_text(path: str | os.PathLike[str], text: str) -> pathlib.Path:
    """Write a UTF-8 text file atomically and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return pathlib.Path(path)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object `{…}` in a UTF-8 JSON file.

    Raises:
        ValueError: If the file holds anything else, with its name.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is damaged: it is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{os.fspath(path)} is damaged: it holds {content!r:.40} in place of an object {{…}}.")
    return content


def write_json(path: str | os.PathLike[str], content: object) -> pathlib.Path:
    """Write a JSON file atomically and return its path. What JSON does not know is written as its string."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def readable(name: str) -> str:
    r"""Return a file's name as text that can be written down, also where its bytes are no UTF-8.

    Example:
        >>> print(readable(os.fsdecode(b"caf\xe9.jpg")))
        caf\xe9.jpg
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

"""Atomic files and folders: what stands under a name is always whole, for every reader and after every fault.

A writer fills a hidden workspace beside the target, puts it on the disk (`fsync`), and gives it its name in one step.
For a folder that replaces a folder this step is a swap of the two (`exchange`). A reader that opens several files of
such a folder uses `read_folder`, so that all of them are of one version.
"""

import contextlib
import errno
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tf_detreg.exchange import exchange
from tf_detreg.workspaces import ASIDE, clean, workspace, workspaces

__all__ = [
    "check_file",
    "clean",
    "move_new",
    "read_folder",
    "read_json",
    "readable",
    "replacing",
    "sync",
    "sync_entry",
    "workspace",
    "write_json",
    "write_text",
]

_Read = TypeVar("_Read")
_ATTEMPTS = 1000  # of a reader, while writers go on replacing what it reads
_PAUSE = 0.001  # seconds between them
_SYNC_ALL = 500  # files, from which on one call for the whole disk is quicker than one for each of them
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_TAKEN_ON_WINDOWS = (*_TAKEN, errno.EACCES)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[pathlib.Path]:
    """Give a temporary path that takes the place of `path` when the block ends well, and vanishes when it does not.

    Works for files and for folders. Whatever fails, and whenever the process is killed, `path` names either the old
    content or the new one, whole, at every moment. Where the system cannot swap two folders in one step (Windows, some
    network disks), there is a moment in which `path` names nothing: `read_folder` waits it out, and if the process is
    killed in it, the next reader or writer puts the old folder back. What killed writers left half-written in the same
    folder is removed.

    Args:
        path: The file or folder to write. Missing parent folders are made.
        durable: Whether to wait until the content is on the disk, so that a power cut leaves one of the two as well.
            Default True; False for what can be computed again.

    Yields:
        A path on the same disk, with the same name, that does not exist yet.

    Raises:
        OSError: If nothing can be written there; the message says where.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with replacing(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole or not at all")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']
    """
    path = pathlib.Path(path)
    with _staged(path, durable) as new:
        yield new
        if new.is_file() and path.is_dir():
            raise _is_a_folder(path)
        if durable:
            sync(new)
        _put(new, path)


def move_new(new: pathlib.Path, path: pathlib.Path) -> None:
    """Give a folder that holds something its name, in one step that fails where the name is taken.

    Raises:
        FileExistsError: If `path` is there already.
    """
    try:
        if path.is_dir() and not any(path.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        new.rename(path)
    except OSError as error:
        if error.errno in (_TAKEN_ON_WINDOWS if os.name == "nt" else _TAKEN):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        raise


@contextlib.contextmanager
def _staged(path: pathlib.Path, durable: bool) -> Iterator[pathlib.Path]:
    """Yield a path inside a workspace; the parent's new entry is put on the disk in the end."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(workspace(path.parent, path.name))
        except OSError as error:
            reason = f"Cannot write here ({error.strerror}). Choose another place"
            raise OSError(error.errno, reason, str(path)) from error
        try:
            yield folder / path.name
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        if durable:
            sync_entry(path.parent)


def _put(new: pathlib.Path, path: pathlib.Path) -> None:
    """Give what was written its name; what bore it before is then in the workspace, and goes with it."""
    while True:
        try:
            os.replace(new, path)
            return
        except OSError as error:
            if error.errno not in (_TAKEN_ON_WINDOWS if os.name == "nt" else _TAKEN) or not os.path.lexists(path):
                raise
        # A folder with something in it, or a file where a folder is to be.
        with contextlib.suppress(FileNotFoundError):  # another writer took it away in between: the name is free
            if exchange(new, path):
                return
            aside = new.parent / ASIDE
            aside.mkdir(exist_ok=True)
            path.rename(aside / path.name)


def read_folder(path: str | os.PathLike[str], read: Callable[[pathlib.Path], _Read]) -> _Read:
    """Read a folder that `replacing` writes, so that all that is read is of one version.

    The call is repeated while the folder is replaced under it. No lock is needed, and no writer waits.

    Args:
        path: The folder.
        read: Reads from the path it is given, and raises what it finds wrong. It may be called several times.

    Returns:
        What `read` returned.

    Raises:
        Exception: What `read` raised on a folder that stayed the same.
        OSError: If the folder is replaced again and again for as long as it is tried.

    Example:
        >>> import tempfile
        >>> read_folder(tempfile.mkdtemp(), lambda folder: sorted(folder.iterdir()))
        []
    """
    path = pathlib.Path(path)
    for _ in range(_ATTEMPTS):
        with _pinned(path) as identity:
            if identity is None and _is_aside(path):
                time.sleep(_PAUSE)
                continue
            failure: Exception | None = None
            try:
                result = read(path)
            except Exception as error:  # whatever it is, it may come from a folder that has gone
                failure = error
            if identity == _identity(path):
                if failure is not None:
                    raise failure
                return result
        time.sleep(_PAUSE)
    raise OSError(
        errno.EBUSY, "This folder is replaced without a pause. Read it again when its writers have ended", str(path)
    )


@contextlib.contextmanager
def _pinned(path: pathlib.Path) -> Iterator[tuple[int, int] | None]:
    """Yield what identifies the folder now. While it is held open, no new folder can come to the same identity."""
    if os.name == "nt":
        yield _identity(path)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        yield status.st_dev, status.st_ino
    finally:
        os.close(descriptor)


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_aside(path: pathlib.Path) -> bool:
    """Return whether a writer has moved the folder aside for a moment; a killed writer's is put back first."""
    waiting = any((folder / ASIDE / path.name).exists() for folder in workspaces(path.parent))
    if waiting:
        clean(path.parent)
    return waiting


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file, or a folder and all in it, is on the disk, so that a power cut cannot leave half of it.

    Raises:
        OSError: If the disk reports an error, or `path` is not there.
    """
    path = pathlib.Path(path)
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    if len(found) > _SYNC_ALL and hasattr(os, "sync"):
        os.sync()
        return
    for entry in found:
        if os.name == "nt" and entry.is_dir():
            continue  # folders cannot be opened there
        descriptor = os.open(entry, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_entry(folder: pathlib.Path) -> None:
    """Put the names in a folder on the disk, where a disk can be told to: all else is written by then."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
    with _staged(path, durable=False):
        pass


def _is_a_folder(path: pathlib.Path) -> OSError:
    return IsADirectoryError(errno.EISDIR, "A folder is in the way of this file. Choose another name", str(path))


def existing(path: str | os.PathLike[str], argument: str, advice: str) -> pathlib.Path:
    """Return a path as a `Path`, if there is something.

    Args:
        path: A file or directory.
        argument: The name of the argument that said it.
        advice: What to give instead, a sentence.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"`{argument}`: there is no {readable(str(path))!r}, seen from {os.getcwd()}. {advice}")
    return path


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
    r"""Return text that can be written down as UTF-8, also a file's name whose bytes are none: the rest is escaped.

    Example:
        >>> print(readable(os.fsdecode(b"caf\xe9.jpg")), readable("\ud800"), readable("é"))
        caf\xe9.jpg \ud800 é
    """
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character, as JSON can hold it and no file's name
        return name.encode("utf-8", "backslashreplace").decode()

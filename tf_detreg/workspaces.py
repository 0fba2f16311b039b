"""Hidden folders for what is half written: each belongs to one living writer, and the next writer removes a dead one's.

A workspace lies beside what is being written, so that a rename takes the result to its name. Its writer holds the
operating system's lock on it (`flock`), which ends with the process however that ends. Who gets the lock of a workspace
therefore knows that its writer is gone. Where there are no such locks (Windows, some network disks) nothing is removed.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module everywhere else

MARK = ".tf_detreg"
"""Ends the name of every workspace: nothing else is ever removed."""
ASIDE = "aside"
"""Holds, inside a workspace, what is being replaced, where two folders cannot be swapped in one step."""
_PART_OF_THE_NAME = 32  # the whole of a long name and what is added would be too long


@contextlib.contextmanager
def workspace(parent: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Make a hidden folder in `parent` that vanishes with the block; remove those that killed writers left there.

    Args:
        parent: An existing folder.
        name: What is going to be written; a part of it becomes part of the hidden name.

    Yields:
        The folder, empty.

    Raises:
        OSError: If nothing can be written in `parent`.
    """
    clean(parent)
    folder, lock = _new(parent, name)
    try:
        yield folder
    finally:
        try:
            put_back(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            if lock is not None:
                _release(lock)


@contextlib.contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Let one process at a time run the block for a folder; the others wait. Without locks, all run it.

    Args:
        folder: An existing folder.

    Raises:
        OSError: If the folder cannot be opened.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _release(descriptor)


def _release(descriptor: int) -> None:
    """Close a descriptor, and give its lock back first: a Ctrl-C between the two must not keep it for ever."""
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def clean(parent: pathlib.Path) -> None:
    """Remove the workspaces in a folder whose writers are gone, and first put back what they had moved aside."""
    if fcntl is None:
        return
    for folder in workspaces(parent):
        with contextlib.suppress(OSError), _held(folder):
            put_back(folder)
            shutil.rmtree(folder, ignore_errors=True)


def workspaces(parent: pathlib.Path) -> list[pathlib.Path]:
    """Return the workspaces in a folder, of living writers and of killed ones."""
    try:
        with os.scandir(parent) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".") and entry.name.endswith(MARK)]
    except OSError:
        return []
    return [parent / name for name in names]


def put_back(folder: pathlib.Path) -> None:
    """Give what a workspace moved aside its name again, unless something else bears that name now.

    Raises:
        OSError: If it cannot be moved. It is then still in the workspace, which must not be removed.
    """
    aside = folder / ASIDE
    for old in aside.iterdir() if aside.is_dir() else ():
        if not os.path.lexists(folder.parent / old.name):
            old.rename(folder.parent / old.name)


def _new(parent: pathlib.Path, name: str) -> tuple[pathlib.Path, int | None]:
    """Return a new folder and the descriptor whose lock says that its writer lives."""
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{name[:_PART_OF_THE_NAME]}.", suffix=MARK, dir=parent))
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another writer took it for a dead one's in the moment before the lock: take a new one


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock of a folder while the block runs.

    Raises:
        OSError: If another process holds it, or there are no locks here.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        _release(descriptor)


def _lock(folder: pathlib.Path) -> int | None:
    """Return a descriptor with the lock of a new folder, or None where there are no locks.

    Raises:
        BlockingIOError: If another process holds it.
        FileNotFoundError: If another process removed it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # a disk without locks: nobody gets the lock, so nobody removes the folder
        os.stat(folder)  # it may have been removed between opening and locking
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

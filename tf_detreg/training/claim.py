"""One process a run directory: a lock that dies with its process."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError:
    # Windows: a second process in the same run directory is not noticed there.
    fcntl = None  # type: ignore[assignment]  # a module everywhere else

LOCK = ".lock"


@contextlib.contextmanager
def claimed(directory: pathlib.Path) -> Iterator[None]:
    """Make a directory, and keep other processes from training in it while the block runs.

    The lock is the operating system's, on a file in the directory: a killed process holds nothing back. Where the
    system or the disk knows no locks, the block runs without one. Folders that were made here and stay empty are
    removed again.

    Args:
        directory: Made if it is not there, with its parents.

    Raises:
        ValueError: If it is a file, or another process, or another call in this one, holds it.
        OSError: If nothing can be written there.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(
            f"`directory` must be a directory; received the file {str(directory)!r}. Choose another place."
        )
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        with _locked(directory):
            yield
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = None if fcntl is None else _lock(path)
    except BlockingIOError as error:
        raise ValueError(
            f"Another process trains in {str(directory)!r}: wait until it has ended, or choose another directory."
        ) from error
    except OSError as error:
        text = f"Cannot write here ({error.strerror}). Choose another place"
        raise OSError(error.errno, text, str(directory)) from error
    try:
        yield
    finally:
        if file is not None:
            # Removed while it is still held: who opened it meanwhile sees that it is gone.
            try:
                path.unlink(missing_ok=True)
            finally:
                os.close(file)


def _lock(path: pathlib.Path) -> int:
    """Return the lock file, open and locked.

    Raises:
        BlockingIOError: If it is locked already.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise
        except OSError:
            return file  # a disk without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        # It was removed between opening and locking.
        os.close(file)

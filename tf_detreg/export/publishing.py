"""Versions that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tf_detreg.files import creating
from tf_detreg.workspaces import workspace


def publish(
    directory: str | os.PathLike,
    version: int | None,
    write: Callable[[pathlib.Path], object],
    *,
    needed: int = 0,
    check: Callable[[pathlib.Path], object] | None = None,
) -> pathlib.Path:
    """Write a numbered version under a hidden name, check it, sync it to the disk and give it its number in one step.

    Args:
        directory: The model's folder.
        version: The number; None for one more than the largest present.
        write: Called with the temporary path, which it fills.
        needed: Bytes that will be written at least; refused beforehand where the disk has less.
        check: Called with the temporary path before publishing; an exception from it keeps the version back.

    Raises:
        ValueError: If the version exists or is not a positive number, or from `write` and `check`.
        ImportError: From `write`.
        OSError: If the disk is full or not writable. What was there before is untouched.
    """
    directory = pathlib.Path(directory)
    present = versions(directory)
    version = free_version(directory, version)
    require_space(directory, needed)
    try:
        with creating(directory / str(version)) as temporary:
            write(temporary)
            if check is not None:
                check(temporary)
    except FileExistsError as error:
        raise ValueError(f"version={version} is in {str(directory)!r} already, made by another process.") from error
    except Exception as error:
        # TensorFlow reports a full disk with exceptions of its own.
        if isinstance(error, ValueError | ImportError):
            raise
        raise OSError(
            f"Version {version} was not published to {str(directory)!r}; {_kept(present)}. {error}"
        ) from error
    return directory / str(version)


@contextlib.contextmanager
def staging(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder in `directory`, on the same disk; it goes in the end, and a new, empty `directory` with it."""
    new = not directory.exists()
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if new:
                stack.callback(_remove_if_empty, directory)
            folder = stack.enter_context(workspace(directory, "export"))
        except OSError as error:
            reason = f"Cannot write here ({error.strerror}). Choose another folder"
            raise OSError(error.errno, reason, str(directory)) from error
        yield folder


def _remove_if_empty(directory: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


def move_in(staged: dict[str, pathlib.Path], directory: pathlib.Path, version: int) -> dict[str, pathlib.Path]:
    """Moves finished artefacts to their places, the SavedModel last: once it is there, all is there."""
    paths = {name: directory / path.name for name, path in staged.items()}
    if (directory / str(version)).exists():
        raise ValueError(f"version={version} is in {str(directory)!r} already; leave it out for the next free one.")
    for name in sorted(staged, key=lambda name: staged[name].is_dir()):
        staged[name].replace(paths[name])
    return paths


def versions(directory: str | os.PathLike) -> list[int]:
    """The version numbers in a model's folder, ascending."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal() and entry.is_dir())


def free_version(directory: str | os.PathLike, version: int | None) -> int:
    """The number that a new version gets: the one asked for, or one more than the largest present.

    Raises:
        ValueError: If it is there already or is not a positive whole number.
    """
    following = max(versions(directory), default=0) + 1
    if version is None:
        return following
    if isinstance(version, bool) or not isinstance(version, int | np.integer) or version < 1:
        raise ValueError(f"version={version!r} must be a whole number of at least 1.")
    if version in versions(directory):
        raise ValueError(f"version={version} is in {str(directory)!r} already; the next free one is {following}.")
    return int(version)


def require_space(directory: pathlib.Path, needed: int) -> None:
    """Raises OSError where the disk has clearly less than `needed` bytes left."""
    place = next(folder for folder in (directory, *directory.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(
            f"Nothing was written to {str(directory)!r}: it takes {needed / 1e6:.1f} MB and the disk has "
            f"{free / 1e6:.1f} MB left. Free some space or choose another place."
        )


def bytes_of(variables: Iterable) -> int:
    """Bytes of the values of Keras variables, and a megabyte for the graph."""
    return 1_000_000 + sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in variables)


def _kept(present: list[int]) -> str:
    return f"version {present[-1]} stays as it was" if present else "nothing was left behind"

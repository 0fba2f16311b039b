"""Versions that appear whole or not at all, each number once, with checksums of all their files."""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tf_detreg import checks, manifests
from tf_detreg.files import move_new, sync, sync_entry
from tf_detreg.workspaces import alone_in, clean, workspace

MANIFEST = "manifest.json"
_FORMAT = 1
_WITHOUT_SAVED_MODEL = "lite-"  # TensorFlow Serving would try to load a folder whose name is a number
_FLAT = re.compile(r".*-v(\d+)-(?:float32|float16|dynamic|int8)\.tflite")  # where version 0.1.0 put them


def publish(
    directory: str | os.PathLike[str],
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
    free_version(directory, version)
    require_space(directory, needed)
    try:
        with staging(directory) as folder:
            content = folder / "content"
            write(content)
            seal(content)
            if check is not None:
                check(content)
            return take_number(content, directory, version)
    except Exception as error:
        # TensorFlow reports a full disk with exceptions of its own.
        if isinstance(error, ValueError | ImportError):
            raise
        raise OSError(f"No version was published to {str(directory)!r}; {_kept(present)}. {error}") from error


def seal(content: pathlib.Path) -> None:
    """Write `manifest.json`: size and SHA-256 of every file of a version, and of the manifest itself."""
    for folder in (content, *(path for path in content.rglob("*") if path.is_dir())):
        clean(folder)  # what an error while it was being removed has left there
    names = [file.relative_to(content).as_posix() for file in content.rglob("*") if file.is_file()]
    files = manifests.describe(content, [name for name in names if name != MANIFEST])
    manifest = manifests.sealed({"format": _FORMAT, "files": files})
    (content / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check_version(path: str | os.PathLike[str]) -> bool:
    """Compare all files of an exported version with the checksums that were written with it.

    Args:
        path: The version's folder, or a file in it.

    Returns:
        Whether there were checksums: version 0.1.0 wrote none.

    Raises:
        ValueError: If a file is damaged or missing, with its name.

    Example:
        >>> check_version("some/folder/of/another/program")
        False
    """
    path = pathlib.Path(path)
    places = [path] if path.is_dir() else [path.parent, path.parent.parent]
    folder = next((place for place in places if (place / MANIFEST).is_file()), None)
    if folder is None:
        return False
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        described = manifest["files"]
        what = None if manifests.is_intact(manifest) else f"{MANIFEST} does not match its checksum"
        if folder != path and path.is_file() and path.relative_to(folder).as_posix() not in described:
            return False  # a file that was put beside a version
        what = what or manifests.fault(folder, described)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{MANIFEST} cannot be read: {error}"
    if what is not None:
        raise ValueError(
            f"The exported version {str(folder)!r} is damaged ({what}). Copy it again, or export it again."
        )
    return True


def take_number(content: pathlib.Path, directory: pathlib.Path, version: int | None) -> pathlib.Path:
    """Give a finished version its number, in one step, as the only one that gets it.

    Args:
        content: Its folder, on the same disk; without `saved_model.pb` it becomes `lite-N`, which TensorFlow Serving
            passes over.
        directory: The model's folder.
        version: The number; None for the next free one.

    Returns:
        The new folder.

    Raises:
        ValueError: If the number is taken, also by another process meanwhile.
    """
    sync(content)
    prefix = "" if (content / "saved_model.pb").is_file() else _WITHOUT_SAVED_MODEL
    with alone_in(directory):
        while True:
            number = free_version(directory, version)
            try:
                move_new(content, directory / f"{prefix}{number}")
            except FileExistsError:
                continue  # taken by another process on a disk without locks: `free_version` says so, or gives the next
            break
        sync_entry(directory)
    return directory / f"{prefix}{number}"


@contextlib.contextmanager
def staging(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a hidden folder in `directory`, on the same disk; it goes in the end, and a new, empty one with it."""
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


def versions(directory: str | os.PathLike[str]) -> list[int]:
    """Return the version numbers in a model's folder, ascending."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal() and entry.is_dir())


def numbers(directory: str | os.PathLike[str]) -> set[int]:
    """Return every number that a version bears or bore: of folders, and of the flat files of version 0.1.0."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        return set()
    names = [entry.name for entry in directory.iterdir()]
    plain = [name.removeprefix(_WITHOUT_SAVED_MODEL) for name in names]
    flat = [match[1] for match in map(_FLAT.fullmatch, names) if match]
    return {int(name) for name in [*plain, *flat] if name.isdecimal()}


def free_version(directory: str | os.PathLike[str], version: int | None) -> int:
    """Return the number that a new version gets: the one asked for, or one more than the largest present.

    Raises:
        ValueError: If it is there already or is not a positive whole number.
    """
    taken = numbers(directory)
    following = max(taken, default=0) + 1
    if version is None:
        return following
    version = checks.integer("version", version, 1)
    if version in taken:
        raise checks.invalid(
            "version", f"be one that is not in {str(directory)!r}; the next free one is {following}", f"{version}"
        )
    return version


def require_space(directory: pathlib.Path, needed: int) -> None:
    """Raise OSError where the disk has clearly less than `needed` bytes left."""
    place = next(folder for folder in (directory, *directory.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(
            f"Nothing was written to {str(directory)!r}: it takes {needed / 1e6:.1f} MB and the disk has "
            f"{free / 1e6:.1f} MB left. Free some space or choose another place."
        )


def bytes_of(variables: Iterable[Any]) -> int:
    """Return bytes of the values of Keras variables, and a megabyte for the graph."""
    result: int = 1_000_000 + sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in variables)
    return result


def _kept(present: list[int]) -> str:
    return f"version {present[-1]} stays as it was" if present else "nothing was left behind"

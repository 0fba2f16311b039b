"""Checksums of the files in a folder, and of the list of them itself."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping

_PIECE = 1 << 24
_OWN = "sha256"


def describe(folder: pathlib.Path, names: Iterable[str]) -> dict[str, dict[str, object]]:
    """Return size and SHA-256 of files by name.

    Args:
        folder: Where they lie.
        names: Relative to it, with `/`.
    """
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in sorted(names)}


def fault(folder: pathlib.Path, files: Mapping[str, Mapping[str, object]], verify: bool = True) -> str | None:
    """Say what is wrong with the first file that is not as described, or None.

    Args:
        folder: Where they lie.
        files: What `describe` returned.
        verify: Whether to compare checksums, which reads all of it; else sizes alone.
    """
    for name, known in files.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            return f"{name} is missing"
        if size != known["bytes"]:
            return f"{name} has {size} bytes, not {known['bytes']}"
        if verify and sha256(file) != known["sha256"]:
            return f"{name} does not match its checksum"
    return None


def sealed(content: Mapping[str, object]) -> dict[str, object]:
    """Return a manifest with a checksum of itself in its key `sha256`.

    Example:
        >>> is_intact(sealed({"count": 3})), is_intact({**sealed({"count": 3}), "count": 2})
        (True, False)
    """
    content = {key: value for key, value in content.items() if key != _OWN}
    return {**content, _OWN: hashlib.sha256(_canonical(content)).hexdigest()}


def is_intact(content: Mapping[str, object]) -> bool:
    """Return whether a manifest agrees with its own checksum; one without (of version 0.1.0) is taken as it is."""
    return _OWN not in content or sealed(content)[_OWN] == content[_OWN]


def sha256(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _canonical(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

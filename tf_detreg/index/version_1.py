"""Reads the index folders of version 0.1: one array, items as lines of JSON, and a manifest with checksums."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tf_detreg import manifests

MANIFEST = "manifest.json"
_FORMAT = 1
_FILES = ("embeddings.npy", "items.jsonl")


class Contents(NamedTuple):
    """What such an index holds. Its ScaNN tree, if it has one, is left: today's index builds one of its own."""

    vectors: np.ndarray
    ids: list[str | int]
    metadata: list[dict[str, object]]
    fingerprint: str | None


def read(path: pathlib.Path) -> Contents:
    """Read an index of version 0.1 and compare it with its checksums; the vectors stay on disk.

    Raises:
        ValueError: If it is damaged, or of another format.
    """
    manifest = _manifest(path)
    fault = manifests.fault(path, {name: manifest["files"][name] for name in _FILES})
    if fault is not None:
        raise _damaged(path, fault)
    try:
        vectors: np.ndarray = np.load(path / _FILES[0], mmap_mode="r", allow_pickle=False)
        items = [json.loads(line) for line in (path / _FILES[1]).read_text(encoding="utf-8").splitlines()]
        return Contents(
            vectors, [item["id"] for item in items], [item["metadata"] for item in items], manifest["model"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error


def _manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format"]
        complete = "model" in manifest and all({"bytes", "sha256"} <= set(manifest["files"][name]) for name in _FILES)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{MANIFEST} cannot be read") from error
    if version != _FORMAT:
        raise ValueError(f"`path`={str(path)!r} is an index of format {version}; this version reads format {_FORMAT}.")
    if not complete or not manifests.is_intact(manifest):
        raise _damaged(path, f"{MANIFEST} is incomplete or does not match its checksum")
    return manifest


def _damaged(path: pathlib.Path, what: str) -> ValueError:
    return ValueError(f"The index {str(path)!r} is damaged ({what}). Build it again from its images.")

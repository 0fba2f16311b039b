"""An index as a folder on disk: vectors that can be mapped, items as lines of JSON, a manifest with checksums."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_detreg import manifests
from tf_detreg.files import check_file, read_folder, replacing
from tf_detreg.retrieval import approximate, saved_tree

_FORMAT = 1
_MANIFEST = "manifest.json"
_VECTORS = "embeddings.npy"
_ITEMS = "items.jsonl"
_TREE = "tree"  # a folder, when there is a tuned tree


class Contents(NamedTuple):
    """What an index holds."""

    vectors: np.ndarray
    ids: Sequence[str | int]
    metadata: Sequence[Mapping[str, object]]
    fingerprint: str | None
    tree: approximate.Calibrated | None


def write(path: pathlib.Path, contents: Contents) -> None:
    """Put an index at `path`, atomically.

    Raises:
        ValueError: If `path` is taken by something else, or metadata does not fit into JSON.
        OSError: If it cannot be written.
    """
    check_place(path)
    try:
        lines = [
            json.dumps({"id": id, "metadata": item}, allow_nan=False)  # ASCII: no character can break a line
            for id, item in zip(contents.ids, contents.metadata, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` holds something that JSON cannot: {error}.") from error
    with replacing(path) as folder:
        folder.mkdir()
        np.save(folder / _VECTORS, contents.vectors, allow_pickle=False)
        (folder / _ITEMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        tree = contents.tree and saved_tree.save(contents.tree, folder / _TREE)
        manifest = {
            "format": _FORMAT,
            "count": len(contents.vectors),
            "dimension": contents.vectors.shape[1],
            "dtype": "float32",
            "normalisation": "unit length",
            "model": contents.fingerprint,
            "files": manifests.describe(folder, _files(tree)),
            "tree": tree,
        }
        (folder / _MANIFEST).write_text(json.dumps(manifests.sealed(manifest), indent=2) + "\n", encoding="utf-8")


def check_place(path: pathlib.Path) -> None:
    """Raise what `write` would raise about the place.

    Raises:
        ValueError: If `path` exists and is not an index.
        OSError: If nothing can be written there.
    """
    if not (path / _MANIFEST).is_file():
        if path.exists():
            raise ValueError(f"path={str(path)!r} exists and is not an index. Choose another place, or remove it.")
        check_file(path)


def read(path: pathlib.Path, verify: bool) -> Contents:
    """Read what `write` wrote; the vectors stay on disk. All of it is of one version, also while another is written.

    Args:
        path: The folder.
        verify: Whether to compare checksums, which reads all of it; else sizes and counts alone.

    Raises:
        ValueError: If it is not an index, is damaged, or was written by a newer version.
    """
    return read_folder(path, lambda path: _read(path, verify))


def _read(path: pathlib.Path, verify: bool) -> Contents:
    manifest = _manifest(path)
    fault = manifests.fault(path, manifest["files"], verify)
    if fault is not None:
        raise _damaged(path, fault)
    try:
        vectors = np.load(path / _VECTORS, mmap_mode="r", allow_pickle=False)
        items = [json.loads(line) for line in (path / _ITEMS).read_text(encoding="utf-8").splitlines()]
        ids, metadata = [item["id"] for item in items], [item["metadata"] for item in items]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    shape = (manifest["count"], manifest["dimension"])
    if vectors.shape != shape or vectors.dtype != np.float32 or len(items) != manifest["count"]:
        raise _damaged(path, f"{vectors.dtype} vectors {vectors.shape} and {len(items)} items, not {shape}")
    tree = None
    if manifest.get("tree") is not None:
        try:
            tree = saved_tree.load(path / _TREE, path / _VECTORS, shape, manifest["tree"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _damaged(path, f"its ScaNN tree cannot be read: {error}") from error
    return Contents(vectors, ids, metadata, manifest["model"], tree)


def _files(tree: Mapping[str, object] | None) -> list[str]:
    """Names of an index's files besides the manifest."""
    inside = [] if tree is None else [f"{_TREE}/{name}" for name in saved_tree.files(tree["soar"])]
    return [_VECTORS, _ITEMS, *inside]


def _manifest(path: pathlib.Path) -> dict:
    if not (path / _MANIFEST).is_file():
        raise ValueError(
            f"path={str(path)!r} is not an index: it holds no {_MANIFEST}. Make one with Index(…).save(path), or with "
            "`tf-detreg index RUN IMAGES/ --to INDEX`."
        )
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format"]
        complete = {"count", "dimension", "model"} <= set(manifest)
        complete = complete and set(_files(manifest.get("tree"))) == set(manifest["files"])
        complete = complete and all({"bytes", "sha256"} <= set(known) for known in manifest["files"].values())
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{_MANIFEST} cannot be read") from error
    if not manifests.is_intact(manifest):
        raise _damaged(path, f"{_MANIFEST} does not match its checksum")
    if version != _FORMAT:
        raise ValueError(f"path={str(path)!r} is an index of format {version}; this version reads format {_FORMAT}.")
    if not complete:
        raise _damaged(path, f"{_MANIFEST} is incomplete")
    return manifest


def _damaged(path: pathlib.Path, what: str) -> ValueError:
    return ValueError(f"path={str(path)!r}: the index is damaged ({what}). Build it again from its images.")

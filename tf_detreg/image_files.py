"""Image files as sets of images, and what their folders say of them."""

import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_detreg.files import existing

if TYPE_CHECKING:
    import keras

    from tf_detreg.datasets import ImageSet


def image_files(paths: Sequence[str | os.PathLike[str]], embedder: "keras.Model") -> "ImageSet":
    """Return files, and what is named like a picture inside folders, as an unlabeled `ImageSet` of an embedder's size.

    Raises:
        FileNotFoundError: If a path is missing.
        ValueError: If folders hold no image.
    """
    from tf_detreg.datasets.scan import passed_over, sift
    from tf_detreg.images import EXTENSIONS

    files: list[str] = []
    skipped: dict[str, str] = {}
    for path in map(pathlib.Path, paths):
        existing(path, "paths", "Give image files, or folders of them.")
        if path.is_dir():
            visible = sorted(str(file) for file in path.rglob("*") if _is_visible(file, path))
            left_out = passed_over(visible, str(path))
            left_out |= sift((file for file in visible if file not in left_out), str(path))
            files += [file for file in visible if file not in left_out]
            skipped |= left_out
        else:
            files.append(str(path))
    files = list(dict.fromkeys(files))
    if not files:
        known = ", ".join(sorted(EXTENSIONS))
        raise ValueError(f"No image in {', '.join(map(str, paths))}: known endings are {known}.")
    return unlabeled(files, embedder, skipped)


def _is_visible(file: pathlib.Path, folder: pathlib.Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and not file.is_dir()


def unlabeled(files: Sequence[str], embedder: "keras.Model", skipped: Mapping[str, str] | None = None) -> "ImageSet":
    """Return files as an `ImageSet` of an embedder's size, without labels."""
    from tf_detreg.datasets import ImageSet

    size = tuple(embedder.input_shape[1:3])
    return ImageSet(
        labels=np.zeros(len(files), np.int32),
        class_names=["?"],
        paths=files,
        image_size=size,
        name="the files",
        skipped=tuple((skipped or {}).items()),
    )


def paths_of(images: "ImageSet") -> Sequence[str]:
    """Return the files of a set of files."""
    if images.paths is None:
        raise ValueError(f"`images` must be a set of files; received {images.name!r}, which is held in memory.")
    return images.paths


def item_metadata(names: Sequence[str], images: Sequence[str | os.PathLike[str]]) -> list[dict[str, object]]:
    """Return what is known about image files by their names: `path` and, where folders are classes, `label`.

    Args:
        names: The files.
        images: What was given to find them: files and folders.
    """
    folders = [pathlib.Path(path) for path in images if pathlib.Path(path).is_dir()]
    return [{"path": str(pathlib.Path(name).resolve()), **folder_label(name, folders)} for name in names]


def folder_label(file: str | os.PathLike[str], folders: Sequence[pathlib.Path]) -> dict[str, str]:
    """Return the label of a file that lies in a folder inside one of the given folders, as `{"label": name}`.

    Args:
        file: The file.
        folders: The folders that were given. A file right in one of them, or in none, has no label.

    Returns:
        The name of the folder that holds the file, in Unicode's form NFC and without spaces around it; or nothing.

    Example:
        >>> folder_label("photos/daisy/1.jpg", [pathlib.Path("photos")])
        {'label': 'daisy'}
        >>> folder_label("photos/1.jpg", [pathlib.Path("photos")])
        {}
    """
    parent = pathlib.Path(file).parent
    if not any(folder in parent.parents for folder in folders) or parent in folders:
        return {}
    label = unicodedata.normalize("NFC", parent.name).strip()
    return {"label": label} if label else {}

"""A tuned ScaNN tree on disk, beside the vectors that it sorts, so that a loaded index need not build it again.

ScaNN writes protocol buffers and `.npy` files. Only the files named here are kept and read. Its own loader is not used:
it would also unpickle a file of document ids and follow a list of paths. ScaNN's copy of the vectors is dropped; the
tree reads those of the index.
"""

import importlib.metadata
import os
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from tf_detreg.retrieval import approximate, scann_library

_CONFIG = "scann_config.pb"
_COPY = "dataset.npy"
_LIST = "scann_assets.pbtxt"
_PARTS = {
    "ah_codebook.pb": "AH_CENTERS",
    "serialized_partitioner.pb": "PARTITIONER",
    "datapoint_to_token.npy": "TOKENIZATION_NPY",
    "hashed_dataset.npy": "AH_DATASET_NPY",
    "hashed_dataset_soar.npy": "AH_DATASET_SOAR_NPY",
}


def files(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the files that `save` writes; `facts` say whether each item lies in two leaves (`soar`)."""
    return (_CONFIG, *(name for name in _PARTS if facts["soar"] or "soar" not in name))


def save(tuned: approximate.Calibrated, folder: pathlib.Path) -> dict[str, object]:
    """Write a tree into a new folder.

    Args:
        tuned: The tree and what is known about it.
        folder: Does not exist yet.

    Returns:
        What `load` has to know besides the files; plain JSON.

    Raises:
        OSError: If ScaNN did not write what is expected of it.
    """
    folder.mkdir()
    tree = cast(approximate.Tree, tuned.tree)
    tree.searcher.serialize(str(folder), relative_path=True)
    for name in (_COPY, _LIST):
        (folder / name).unlink(missing_ok=True)  # a tree of codes alone has no copy
    written = {file.name for file in folder.iterdir()}
    expected = files({"soar": tree.layout.soar})
    if written != set(expected):
        raise OSError(f"ScaNN wrote {sorted(written)}, not {sorted(expected)}.")
    return {
        "scann": importlib.metadata.version("scann"),
        "dims": tree.layout.dims,
        "soar": tree.layout.soar,
        "density": tree.layout.density,
        "visited": tree.visited,
        "rescored": tree.rescored,
        **tuned.facts(),
    }


def load(
    folder: pathlib.Path, vectors: pathlib.Path, gallery: np.ndarray, facts: Mapping[str, Any]
) -> approximate.Calibrated | None:
    """Return a tree that `save` wrote, or None where ScaNN is missing or of another version than the one that wrote it.

    Args:
        folder: Holds the files.
        vectors: The `.npy` file of the vectors, on the same disk.
        gallery: The vectors.
        facts: What `save` returned.

    Raises:
        KeyError, TypeError, ValueError: If `facts` do not fit.
    """
    beside = pathlib.PurePath(os.path.relpath(vectors, folder)).as_posix()
    found = read(folder, facts, {beside: "DATASET_NPY"})
    if found is None:
        return None
    searcher, layout, tuning = found
    return approximate.Calibrated.of(approximate.Tree(searcher, gallery.shape, layout, *tuning), facts)


def read(
    folder: pathlib.Path, facts: Mapping[str, Any], more: Mapping[str, str]
) -> tuple[Any, approximate.Layout, tuple[int, int]] | None:
    """Return ScaNN's searcher, its layout, and how many leaves it visits and candidates it scores again.

    Args:
        folder: Holds the files.
        facts: What `save` returned.
        more: Other files, by their path from `folder`, with what they are to ScaNN.

    Returns:
        None where ScaNN is missing or of another version than the one that wrote them.

    Raises:
        KeyError, TypeError, ValueError: If `facts` do not fit.
    """
    layout = approximate.Layout(int(facts["dims"]), bool(facts["soar"]), float(facts["density"]))
    tuning = int(facts["visited"]), int(facts["rescored"])
    if approximate.available() is not None or importlib.metadata.version("scann") != facts["scann"]:
        return None
    parts = {name: _PARTS[name] for name in files(facts) if name != _CONFIG} | dict(more)
    listed = "\n".join(f'assets {{ asset_type: {kind} asset_path: "{name}" }}' for name, kind in parts.items())
    library = scann_library.searchers()
    return library.ScannSearcher(library.scann_pybind.ScannNumpy(str(folder), listed)), layout, tuning

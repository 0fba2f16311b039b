"""A tuned ScaNN tree on disk, beside the vectors that it sorts, so that a loaded index need not build it again.

ScaNN writes protocol buffers and `.npy` files. Only the files named here are kept and read. Its own loader is not used:
it would also unpickle a file of document ids and follow a list of paths. ScaNN's copy of the vectors is dropped; the
tree reads those of the index.
"""

import importlib.metadata
import os
import pathlib
from collections.abc import Mapping
from typing import Any

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


def files(soar: bool) -> tuple[str, ...]:
    """Names of a tree's files."""
    return (_CONFIG, *(name for name in _PARTS if soar or "soar" not in name))


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
    tree = tuned.tree
    tree.searcher.serialize(str(folder), relative_path=True)
    for name in (_COPY, _LIST):
        (folder / name).unlink()
    written = {file.name for file in folder.iterdir()}
    if written != set(files(tree.layout.soar)):
        raise OSError(f"ScaNN wrote {sorted(written)}, not {sorted(files(tree.layout.soar))}.")
    return {
        "scann": importlib.metadata.version("scann"),
        "depth": tuned.depth,
        "dims": tree.layout.dims,
        "soar": tree.layout.soar,
        "density": tree.layout.density,
        "visited": tree.visited,
        "rescored": tree.rescored,
        "recall": tuned.recall,
        "interval": list(tuned.interval),
        "seconds": tuned.seconds,
    }


def load(
    folder: pathlib.Path, vectors: pathlib.Path, shape: tuple[int, int], facts: Mapping[str, Any]
) -> approximate.Calibrated | None:
    """A tree that `save` wrote, or None where ScaNN is missing or of another version than the one that wrote it.

    Args:
        folder: Holds the files.
        vectors: The `.npy` file of the vectors, on the same disk.
        shape: Of the vectors.
        facts: What `save` returned.

    Raises:
        KeyError, TypeError, ValueError: If `facts` do not fit.
    """
    layout = approximate.Layout(int(facts["dims"]), bool(facts["soar"]), float(facts["density"]))
    low, high = map(float, facts["interval"])
    known = float(facts["recall"]), (low, high), float(facts["seconds"]), int(facts["depth"])
    tuning = int(facts["visited"]), int(facts["rescored"])
    if approximate.available() is not None or importlib.metadata.version("scann") != facts["scann"]:
        return None
    parts = {name: _PARTS[name] for name in files(layout.soar) if name != _CONFIG}
    parts[pathlib.PurePath(os.path.relpath(vectors, folder)).as_posix()] = "DATASET_NPY"
    listed = "\n".join(f'assets {{ asset_type: {kind} asset_path: "{name}" }}' for name, kind in parts.items())
    library = scann_library.searchers()
    searcher = library.ScannSearcher(library.scann_pybind.ScannNumpy(str(folder), listed))
    tree = approximate.Tree(searcher, shape, layout, *tuning)
    return approximate.Calibrated(tree, np.empty(0, np.int64), *known)

"""What a process does that begins with the package; `test_package.py` starts this and looks at what it says.

    python -m tests.new_process FOLDER    # with the files that `test_package.py` wrote there

One process, because to start it takes most of the time. It says of each part "" or what went wrong, as JSON.
"""

import json
import pathlib
import sys
import traceback
import warnings

import keras

BEFORE = set(sys.modules)

import tf_detreg as dr  # noqa: E402 - what this brings is one of the questions

BROUGHT = sorted(name for name in set(sys.modules) - BEFORE if "." not in name)

import numpy as np  # noqa: E402


def reach(folder):
    """What the README suggests, before anything imports the modules by name."""
    assert not {"tf_detreg.recipes", "tf_detreg.analysis.lipschitz"} & set(sys.modules)
    assert dr.recipes.names() and dr.analysis.lipschitz.measure and dr.images and dr.datasets.folder
    assert {"recipes", "analysis", "images"} <= set(dir(dr)) and "lipschitz" in dir(dr.analysis)
    try:
        dr.analysis.nothing  # noqa: B018
    except AttributeError as error:
        assert "nothing" in str(error)
    else:
        raise AssertionError("no AttributeError")


def former_names(folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert dr.analysis.neighbours is dr.analysis.neighbors
    assert any("analysis.neighbors` now" in str(warning.message) for warning in caught)
    assert "neighbours" not in dir(dr.analysis)


def embedder(folder):
    file = np.load(folder / "embedder.npz")
    found = np.asarray(dr.load(folder / "embedder.keras")(file["images"]))
    assert abs(found - file["embeddings"]).max() < 1e-6


def heads(folder):
    x = np.load(folder / "heads" / "x.npy")
    for path in sorted(folder.glob("heads/*.keras")):
        model = keras.models.load_model(path)
        np.testing.assert_array_equal(model(x), np.load(path.with_suffix(".npy")), err_msg=path.stem)


def losses(folder):
    for path in sorted(folder.glob("losses/*.keras")):
        batch, model = np.load(path.with_suffix(".npz")), keras.models.load_model(path, safe_mode=True)
        loss = model.loss_function if hasattr(model, "loss_function") else model.loss
        value = loss(batch["labels"], model(batch["x"]), **({"training": False} if path.stem == "memory" else {}))
        np.testing.assert_allclose(value, batch["value"], rtol=1e-6, err_msg=path.stem)


def files_of_other_formats(folder):
    """They are read for training without being tried by TensorFlow, which would log an error for each and epoch."""
    paths = [str(path) for path in sorted(folder.glob("*.png"))]
    images = dr.datasets.ImageSet(labels=[0, 0, 1, 1], class_names="ab", paths=paths, image_size=8)
    print("reading", file=sys.stderr, flush=True)
    assert [batch.shape[0] for batch, _ in images.batches(2, 2)] == [4]
    print("read", file=sys.stderr, flush=True)


def names(folder):
    assert all(getattr(dr, name).__name__ for name in dr.__all__)
    assert dr.analysis.lipschitz.measure.__name__ == "measure" and "neighbors" in dir(dr.analysis)


# Files first: what the others import would register layers, too.
PARTS = (heads, losses, embedder, reach, former_names, names, files_of_other_formats)


def answer(part, folder):
    try:
        part(folder)
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    said = {"brought": BROUGHT, "tab": dir(dr), "api": sorted([*dr.__all__, "__version__"])}
    print(json.dumps(said | {part.__name__: answer(part, pathlib.Path(sys.argv[1])) for part in PARTS}))

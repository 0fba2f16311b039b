"""Stanford Cars-196: 196 models of cars; metric learning trains on the first 98."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from tf_detreg import deprecated, extras
from tf_detreg.datasets.benchmarks import Benchmark
from tf_detreg.datasets.image_set import Size, Splits, hold_out

_PAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
# One list for all images, as papers on metric learning use it, or the two lists of the classification task.
WHOLE = Benchmark("Cars-196", _PAGE, ("cars_annos.mat", "car_ims"))
PARTED = Benchmark(
    "Cars-196",
    _PAGE,
    (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
        "cars_train",
        "cars_test",
    ),
)
COUNTS = {"train": 8054, "test": 8131}


@deprecated.renamed_arguments(path="directory")
def cars(
    directory: str | os.PathLike[str],
    image_size: Size = 224,
    validation: float = 0.2,
    seed: int = 0,
    check: bool = True,
) -> Splits:
    """Load the official files: `cars_annos.mat` with `car_ims/`, or `devkit/`, `cars_train/`, `cars_test/` and
    `cars_test_annos_withlabels.mat`.

    Args:
        directory: The folder that holds them.
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        validation: Share of the first 98 classes held out for every choice; papers train on all of them (0). Default
            0.2.
        seed: Of the held-out classes. Default 0.
        check: Insist on the official 8,054 and 8,131 images. Default True.

    Raises:
        FileNotFoundError: If a file is missing; the message names it and the download page.
        ValueError: If a .mat file is not what it should be, or the counts are not the official ones.
    """
    root = pathlib.Path(directory)
    if (root / "devkit").exists():
        listed, names = _parted(PARTED.open(root))
    else:
        listed, names = _whole(WHOLE.open(root))
    parts = {}
    for part, first in (("train", True), ("test", False)):
        rows = [(file, label) for file, label in listed if (label <= 98) is first]
        WHOLE.check(f"{part} images", len(rows), COUNTS[part] if check else None)
        parts[part] = WHOLE.image_set(
            root, [f for f, _ in rows], [c for _, c in rows], lambda c: names[c - 1], image_size, part
        )
    return Splits(*hold_out(parts["train"], validation, seed), parts["test"])


def _whole(root: pathlib.Path) -> tuple[list[tuple[str, int]], list[str]]:
    content = _mat(root / "cars_annos.mat", "annotations", "class_names")
    return _annotations(content, "relative_im_path", ""), _names(content)


def _parted(root: pathlib.Path) -> tuple[list[tuple[str, int]], list[str]]:
    listed = [
        pair
        for file, folder in (
            ("devkit/cars_train_annos.mat", "cars_train/"),
            ("cars_test_annos_withlabels.mat", "cars_test/"),
        )
        for pair in _annotations(_mat(root / file, "annotations"), "fname", folder)
    ]
    return listed, _names(_mat(root / "devkit" / "cars_meta.mat", "class_names"))


def _mat(path: pathlib.Path, *keys: str) -> dict[str, Any]:
    with extras.needed("Reading .mat files"):
        from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises many kinds on broken files
        raise ValueError(f"{path} is no readable .mat file ({error}); get it again from {_PAGE}.") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; get it again from {_PAGE}.")
    return content


def _annotations(content: dict[str, Any], field: str, folder: str) -> list[tuple[str, int]]:
    rows = content["annotations"].reshape(-1)
    return [(folder + str(row[field]), int(row["class"])) for row in rows]


def _names(content: dict[str, Any]) -> list[str]:
    return [str(name) for name in content["class_names"].reshape(-1)]

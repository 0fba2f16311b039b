"""Caltech-UCSD Birds 200-2011: 200 species; metric learning trains on the first 100."""

from __future__ import annotations

import os

from tf_detreg import deprecated
from tf_detreg.datasets.benchmarks import Benchmark, table
from tf_detreg.datasets.image_set import Size, Splits, hold_out

CUB = Benchmark(
    "CUB-200-2011",
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    ("images", "images.txt", "image_class_labels.txt", "classes.txt"),
)
COUNTS = {"train": 5864, "test": 5924}


@deprecated.renamed_arguments(path="directory")
def cub(
    directory: str | os.PathLike[str],
    image_size: Size = 224,
    validation: float = 0.2,
    seed: int = 0,
    check: bool = True,
) -> Splits:
    """Load the official folder `CUB_200_2011`.

    Args:
        directory: The folder that holds `images.txt`.
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        validation: Share of the first 100 classes held out for every choice; papers train on all of them (0). Default
            0.2.
        seed: Of the held-out classes. Default 0.
        check: Insist on the official 5,864 and 5,924 images. Default True.

    Raises:
        FileNotFoundError: If a file is missing; the message names it and the download page.
        ValueError: If the counts are not the official ones.
    """
    root = CUB.open(directory)
    files = dict(table(root / "images.txt", 2))
    names = {int(number): name for number, name in table(root / "classes.txt", 2)}
    listed = [
        (files[image], int(label)) for image, label in table(root / "image_class_labels.txt", 2) if image in files
    ]
    parts = {}
    for part, first in (("train", True), ("test", False)):
        rows = [(file, label) for file, label in listed if (label <= 100) is first]
        CUB.check(f"{part} images", len(rows), COUNTS[part] if check else None)
        parts[part] = CUB.image_set(
            root / "images", [f for f, _ in rows], [c for _, c in rows], names.__getitem__, image_size, part
        )
    return Splits(*hold_out(parts["train"], validation, seed), parts["test"])

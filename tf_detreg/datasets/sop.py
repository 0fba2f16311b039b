"""Stanford Online Products: 22,634 articles of 12 kinds, a handful of photographs each."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from tf_detreg import deprecated
from tf_detreg.datasets.benchmarks import Benchmark, table
from tf_detreg.datasets.image_set import ImageSet, Size, Splits, hold_out

SOP = Benchmark(
    "Stanford Online Products", "https://cvgl.stanford.edu/projects/lifted_struct/", ("Ebay_train.txt", "Ebay_test.txt")
)
COUNTS = {"train": (59551, 11318), "test": (60502, 11316)}


@deprecated.renamed_arguments(path="directory")
def sop(
    directory: str | os.PathLike[str],
    image_size: Size = 224,
    validation: float = 0.2,
    seed: int = 0,
    check: bool = True,
) -> Splits:
    """Load the official folder `Stanford_Online_Products`.

    Args:
        directory: The folder that holds `Ebay_train.txt`.
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        validation: Share of the train classes held out for every choice; papers train on all of them (0). Default
            0.2.
        seed: Of the held-out classes. Default 0.
        check: Insist on the official 59,551 images of 11,318 articles and 60,502 of 11,316. Default True.

    Raises:
        FileNotFoundError: If a file is missing; the message names it and the download page.
        ValueError: If the counts are not the official ones.
    """
    root = SOP.open(directory)
    parts = {part: _part(root, part, image_size, check) for part in ("train", "test")}
    return Splits(*hold_out(parts["train"], validation, seed), parts["test"])


def _part(root: pathlib.Path, part: str, image_size: Size, check: bool) -> ImageSet:
    rows = table(root / f"Ebay_{part}.txt", 4, skip=1)
    articles = [int(row[1]) for row in rows]
    kinds = {int(row[1]): row[3].split("/")[0].removesuffix("_final") for row in rows}
    images, classes = COUNTS[part] if check else (None, None)
    SOP.check(f"{part} images", len(rows), images)
    SOP.check(f"{part} classes", len(kinds), classes)
    groups = np.asarray([int(row[2]) - 1 for row in rows], np.int32)
    return SOP.image_set(
        root, [row[3] for row in rows], articles, lambda a: f"{kinds[a]} {a}", image_size, part, groups=groups
    )

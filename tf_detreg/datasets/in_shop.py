"""DeepFashion In-Shop Clothes Retrieval: queries look for the same garment in a gallery."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

from tf_detreg import deprecated
from tf_detreg.datasets.benchmarks import Benchmark, table
from tf_detreg.datasets.image_set import ImageSet, Size, hold_out

_LISTS = ("Eval/list_eval_partition.txt", "list_eval_partition.txt")
_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
COUNTS = {"train": 25882, "query": 14218, "gallery": 12612}


class GallerySplits(NamedTuple):
    """`Splits` whose test images are queries against a gallery; both number their classes alike."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    gallery: ImageSet


@deprecated.renamed_arguments(path="directory")
def in_shop(
    directory: str | os.PathLike[str],
    image_size: Size = 224,
    validation: float = 0.2,
    seed: int = 0,
    check: bool = True,
) -> GallerySplits:
    """Load the official folder: `Eval/list_eval_partition.txt` and `Img/img/…` (or `img/…`).

    Args:
        directory: The folder that holds them.
        image_size: Side or (height, width) at which pictures are decoded. Default 224.
        validation: Share of the train classes held out for every choice; papers train on all of them (0). Default
            0.2.
        seed: Of the held-out classes. Default 0.
        check: Insist on the official 25,882 train, 14,218 query and 12,612 gallery images. Default True.

    Returns:
        `GallerySplits`: `test` are the queries, `gallery` is where they look.

    Raises:
        FileNotFoundError: If a file is missing; the message names it and the download page.
        ValueError: If the list is not what it should be, or the counts are not the official ones.
    """
    root = pathlib.Path(directory)
    listing = next((name for name in _LISTS if (root / name).exists()), _LISTS[0])
    benchmark = Benchmark("In-Shop", _PAGE, (listing,))
    rows = table(benchmark.open(root) / listing, 3, skip=2)
    images = root / "Img" if (root / "Img").is_dir() else root
    parts = {part: [row for row in rows if row[2] == part] for part in COUNTS}
    if sum(map(len, parts.values())) != len(rows):
        raise ValueError(f"{root / listing} has rows that are none of train, query, gallery; get it from {_PAGE}.")
    for part, chosen in parts.items():
        benchmark.check(f"{part} images", len(chosen), COUNTS[part] if check else None)
    wanted, there = ({row[1] for row in parts[part]} for part in ("query", "gallery"))
    if wanted != there:
        raise ValueError(
            f"In-Shop: {len(wanted ^ there)} garments are only queried or only in the gallery, the first is "
            f"{min(wanted ^ there)}. Get the list again from {_PAGE}."
        )
    loaded = [
        benchmark.image_set(images, [r[0] for r in chosen], [r[1] for r in chosen], str, image_size, part)
        for part, chosen in parts.items()
    ]
    return GallerySplits(*hold_out(loaded[0], validation, seed), *loaded[1:])

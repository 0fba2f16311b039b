"""A folder of class folders from real photographs that come with scikit-learn and matplotlib.

Each class is a place in one of the three photographs; each image of it is another view: shifted, nearer or farther,
turned a little, mirrored, lighter or darker, saved as a JPEG. Retrieval then asks: which views show the same place? The
views of a place share pixels, which is easier than an object that was photographed twice; places above one another
overlap by half, which is harder.

    python examples/photo_folder.py photos/
    tf-detreg train photos/ --features --image-size 96 --epochs 5 --run runs/photos
    tf-detreg evaluate runs/photos
    tf-detreg export runs/photos --format saved_model --format float32

With `--tiles` it cuts each photograph into squares that do not overlap, in one folder and as they are; those that show
nothing but a plain area are left out.

The photographs: china.jpg (Yann Forget) and flower.jpg (dany13) are CC-BY, Grace Hopper's portrait is public domain.
"""

import argparse
import pathlib

import matplotlib.cbook
import numpy as np
import sklearn.datasets
from PIL import Image, ImageEnhance

SIDE = 96


def photographs() -> dict[str, Image.Image]:
    """The three photographs by name."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        found = {"grace_hopper": Image.open(file).convert("RGB")}
    for name in ("china", "flower"):
        found[name] = Image.fromarray(sklearn.datasets.load_sample_image(f"{name}.jpg"))
    return found


def view(photo: Image.Image, x: float, y: float, rng: np.random.Generator) -> Image.Image:
    """One view of the place at (x, y)."""
    half = SIDE / 2 * rng.uniform(0.75, 1.25)
    x, y = (np.clip(at + rng.uniform(-12, 12), half, size - half) for at, size in zip((x, y), photo.size, strict=True))
    # Only what the view can reach is turned: the whole photograph would take ten times as long.
    left, top = int(x) - SIDE, int(y) - SIDE
    near, x, y = photo.crop((left, top, left + 2 * SIDE, top + 2 * SIDE)), x - left, y - top
    turned = near.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, center=(x, y))
    cut = turned.resize((SIDE, SIDE), box=(x - half, y - half, x + half, y + half))
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        cut = kind(cut).enhance(rng.uniform(0.7, 1.3))
    return cut


def write(folder: pathlib.Path, views: int, seed: int) -> int:
    """Writes `views` images of every place into a class folder each, and returns the number of places."""
    rng, places = np.random.default_rng(seed), 0
    for name, photo in photographs().items():
        for y in range(SIDE // 2, photo.size[1] - SIDE // 2 + 1, SIDE // 2):
            for x in range(SIDE // 2, photo.size[0] - SIDE // 2 + 1, SIDE):
                place = folder / f"{name} {x},{y}"
                place.mkdir(parents=True, exist_ok=True)
                for number in range(views):
                    view(photo, x, y, rng).save(place / f"{number}.jpg", quality=int(rng.integers(60, 95)))
                places += 1
    return places


def write_tiles(folder: pathlib.Path) -> int:
    """Writes squares that do not overlap into one folder, and returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, photo in photographs().items():
        for y in range(0, photo.size[1] - SIDE + 1, SIDE):
            for x in range(0, photo.size[0] - SIDE + 1, SIDE):
                tile = photo.crop((x, y, x + SIDE, y + SIDE))
                if np.asarray(tile.convert("L")).std() > 25:
                    tile.save(folder / f"{name} {x} {y}.jpg", quality=90)
                    count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiles", action="store_true", help="squares that do not overlap, instead of views")
    given = parser.parse_args()
    if given.tiles:
        print(f"{write_tiles(given.folder)} squares: {given.folder}")
    else:
        print(f"{write(given.folder, given.views, given.seed)} places, {given.views} views each: {given.folder}")

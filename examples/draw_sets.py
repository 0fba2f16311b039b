"""Draws the small sets of pictures of docs/gallery: no download, and nobody's photo or face.

    python examples/draw_sets.py shop SHOP/         # articles of a shop, and items.csv beside the folder
    python examples/draw_sets.py faces FACES/       # people, drawn
    python examples/draw_sets.py logos LOGOS/       # marks of companies that do not exist
    python examples/draw_sets.py parts PARTS/       # gears, screws and washers, three photos each
    python examples/draw_sets.py sheet gallery.png  # one picture with some of each

Each class is drawn once, by chance, and then "photographed" several times: turned, moved, nearer or farther, lighter or
darker.
"""

import argparse
import colorsys
import csv
import math
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

BIG, SIDE = 128, 48  # drawn large, kept small, so that edges are smooth
Color = tuple[int, int, int]


def color(rng: np.random.Generator, low: float = 0.35, high: float = 0.95) -> Color:
    """Any hue."""
    values = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 0.95), rng.uniform(low, high))
    red, green, blue = (round(255 * value) for value in values)
    return red, green, blue


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A transparent picture and a pen for it."""
    picture = Image.new("RGBA", (BIG, BIG), (0, 0, 0, 0))
    return picture, ImageDraw.Draw(picture)


def photo(thing: Image.Image, rng: np.random.Generator, turn: float, background: tuple[int, int]) -> Image.Image:
    """A photo of a drawing: turned by up to `turn` degrees, on some background."""
    size = int(BIG * rng.uniform(0.75, 1.0))
    thing = thing.rotate(rng.uniform(-turn, turn), Image.Resampling.BICUBIC).resize((size, size))
    picture = Image.new("RGB", (BIG, BIG), tuple(int(value) for value in rng.integers(*background, 3)))
    picture.paste(thing, tuple(int(at) for at in rng.integers(0, BIG - size + 1, 2)), thing)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        picture = kind(picture).enhance(rng.uniform(0.75, 1.25))
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def article(rng: np.random.Generator) -> tuple[str, Image.Image]:
    """An article of a shop and its kind."""
    picture, pen = canvas()
    body, other = color(rng), color(rng)
    kind = ("mug", "bottle", "box", "bowl")[rng.integers(4)]
    if kind == "mug":
        pen.arc((70, 44, 116, 92), -100, 100, fill=body, width=10)
        pen.rounded_rectangle((22, 28, 92, 108), 8, fill=body)
    elif kind == "bottle":
        pen.rectangle((52, 8, 76, 44), fill=other)
        pen.rounded_rectangle((38, 36, 90, 122), 14, fill=body)
    elif kind == "box":
        pen.rectangle((20, 30, 108, 112), fill=body)
    else:
        pen.pieslice((14, 2, 114, 118), 0, 180, fill=body)
    pattern, start, step = rng.integers(3), int(rng.integers(60, 72)), int(rng.integers(10, 20))
    for y in range(start, 100, step):
        if pattern == 1:
            pen.line((42, y, 86, y), fill=other, width=6)
        elif pattern == 2:
            for x in range(46, 84, step):
                pen.ellipse((x, y, x + 8, y + 8), fill=other)
    return kind, picture


def face(rng: np.random.Generator) -> Callable[[np.random.Generator], Image.Image]:
    """A person, as a function that draws them with another expression each time."""
    skin = tuple(
        int(255 * value)
        for value in colorsys.hsv_to_rgb(rng.uniform(0.04, 0.09), rng.uniform(0.25, 0.6), rng.uniform(0.4, 0.95))
    )
    hair, iris, shirt = color(rng, 0.1, 0.6), color(rng, 0.2, 0.6), color(rng)
    wide, apart, low = int(rng.integers(34, 46)), int(rng.integers(14, 21)), int(rng.integers(58, 66))
    fringe, nose, lips = int(rng.integers(22, 44)), int(rng.integers(10, 20)), int(rng.integers(10, 20))
    glasses, long_hair = rng.random() < 0.3, rng.random() < 0.5

    def drawn(now: np.random.Generator) -> Image.Image:
        picture, pen = canvas()
        smile, lids = int(now.integers(-5, 9)), int(now.integers(2, 6))
        pen.ellipse((20, 108, 108, 160), fill=shirt)
        pen.ellipse((62 - wide, 10, 66 + wide, 120 if long_hair else 86), fill=hair)
        pen.ellipse((66 - wide, 16, 62 + wide, 118), fill=skin)
        pen.chord((66 - wide, 14, 62 + wide, 106), 270 - 2 * fringe, 270 + 2 * fringe, fill=hair)
        for x in (64 - apart, 64 + apart):
            pen.ellipse((x - 7, low - lids, x + 7, low + lids), fill="white")
            pen.ellipse((x - 3, low - lids, x + 3, low + lids), fill=iris)
            if glasses:
                pen.ellipse((x - 12, low - 11, x + 12, low + 11), outline=(30, 30, 30), width=3)
        pen.line((64, low + 4, 60, low + 4 + nose, 66, low + 4 + nose), fill=(90, 50, 40), width=2)
        pen.line((64 - lips, 98 - smile, 64, 98, 64 + lips, 98 - smile), fill=(150, 40, 50), width=4)
        return picture

    return drawn


def logo(rng: np.random.Generator) -> Image.Image:
    """A mark: a few shapes in two colors."""
    picture, pen = canvas()
    colors = (color(rng), color(rng))
    for number in range(int(rng.integers(2, 5))):
        x, y, half = (int(rng.choice([40, 64, 88])), int(rng.choice([40, 64, 88])), int(rng.integers(16, 36)))
        box, fill = (x - half, y - half, x + half, y + half), colors[number % 2]
        kind = rng.integers(4)
        if kind == 0:
            pen.ellipse(box, fill=fill)
        elif kind == 1:
            pen.rectangle(box, fill=fill)
        elif kind == 2:
            pen.ellipse(box, outline=fill, width=9)
        else:
            pen.regular_polygon((x, y, half), 3, rotation=int(rng.integers(4)) * 90, fill=fill)
    return picture


def part(rng: np.random.Generator) -> Image.Image:
    """A gear, a screw or a washer in gray: what tells two of a kind apart are measures."""
    picture, pen = canvas()
    gray = int(rng.integers(90, 150))
    metal, kind = (gray, gray, gray + 8), rng.integers(3)
    if kind == 0:
        teeth, outer, hole = int(rng.integers(7, 16)), int(rng.integers(40, 56)), int(rng.integers(8, 22))
        pen.ellipse((64 - outer + 8, 64 - outer + 8, 56 + outer, 56 + outer), fill=metal)
        for angle in np.arange(teeth) * 2 * math.pi / teeth:
            x, y = 64 + (outer - 6) * math.cos(angle), 64 + (outer - 6) * math.sin(angle)
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=metal)
        pen.ellipse((64 - hole, 64 - hole, 64 + hole, 64 + hole), fill=(0, 0, 0, 0))
    elif kind == 1:
        length, head, shaft = int(rng.integers(50, 96)), int(rng.integers(16, 30)), int(rng.integers(6, 13))
        pen.rounded_rectangle((64 - head, 14, 64 + head, 28), 4, fill=metal)
        pen.rectangle((64 - shaft, 28, 64 + shaft, 28 + length - 14), fill=metal)
        for y in range(34, 28 + length - 14, int(rng.integers(5, 11))):
            pen.line((60 - shaft, y, 68 + shaft, y + 3), fill=(gray - 50, gray - 50, gray - 45), width=2)
    else:
        outer = int(rng.integers(28, 58))
        hole = int(rng.integers(8, outer - 8))
        pen.ellipse((64 - outer, 64 - outer, 64 + outer, 64 + outer), fill=metal)
        pen.ellipse((64 - hole, 64 - hole, 64 + hole, 64 + hole), fill=(0, 0, 0, 0))
    return picture


def make(kind: str, rng: np.random.Generator) -> tuple[dict[str, object], Callable[[], Image.Image]]:
    """What the shop's table says of a class, and a function that takes another photo of it."""
    facts: dict[str, object] = {}
    if kind == "shop":
        name, thing = article(rng)
        facts = {"kind": name, "price": int(rng.integers(3, 60)), "sold": str(bool(rng.random() < 0.1)).lower()}
    elif kind != "faces":
        thing = logo(rng) if kind == "logos" else part(rng)
    drawn = face(rng) if kind == "faces" else lambda _: thing
    turn, background = {"parts": (180.0, (190, 250)), "logos": (8.0, (0, 256))}.get(kind, (8.0, (170, 250)))
    return facts, lambda: photo(drawn(rng), rng, turn, background)


def write(kind: str, directory: pathlib.Path, classes: int, photos: int, seed: int = 0) -> None:
    """Write a folder of class folders; of a shop also `items.csv` beside it."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(classes):
        name = f"{kind}-{number:03}"
        (directory / name).mkdir(parents=True, exist_ok=True)
        facts, shoot = make(kind, rng)
        for shot in range(photos):
            shoot().save(directory / name / f"{shot}.png")
            rows.append({"path": f"{directory.name}/{name}/{shot}.png", "id": f"{name}-{shot}", **facts})
    if kind == "shop":
        with open(directory.parent / "items.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


def sheet(path: pathlib.Path, classes: int = 12, photos: int = 2) -> None:
    """Write one picture: a column a class, a row a photo, one set below the other."""
    step = SIDE + 4
    picture = Image.new("RGB", (classes * step - 4, len(DEFAULTS) * photos * step + 8 * len(DEFAULTS) - 12), "white")
    for place, kind in enumerate(DEFAULTS):
        rng = np.random.default_rng(0)
        for column in range(classes):
            _, shoot = make(kind, rng)
            for row in range(photos):
                picture.paste(shoot(), (column * step, (place * photos + row) * step + 8 * place))
    picture.quantize(128).save(path, optimize=True)


DEFAULTS = {"shop": (100, 5), "faces": (100, 5), "logos": (80, 6), "parts": (90, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*DEFAULTS, "sheet"])
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--photos", type=int, help="of each class")
    given = parser.parse_args()
    classes, photos = DEFAULTS.get(given.kind, (12, 2))
    classes, photos = given.classes or classes, given.photos or photos
    if given.kind == "sheet":
        sheet(given.path, classes, photos)
    else:
        write(given.kind, given.path, classes, photos)
    print(f"{given.path}: {classes} classes, {photos} photos each")


if __name__ == "__main__":
    main()

"""Draws `docs/pictures/neighbors.png`, the first picture of the README, from a run of the demo.

    tf-detreg demo
    python docs/make_pictures.py runs/demo

The queries are drawn at random from the test classes, a class at most once; none is picked by hand.
"""

import argparse
import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PICTURE = pathlib.Path(__file__).parent / "pictures" / "neighbors.png"
TILE, GAP, FRAME = 64, 10, 3
QUERY, RIGHT, WRONG = "#3457b2", "#1d8a52", "#c8413b"


def frame(draw, x: int, y: int, color: str, dashed: bool) -> None:
    """Draw a frame around the tile at (x, y)."""
    for inset in range(1, FRAME + 1):
        left, top, right, bottom = x - inset, y - inset, x + TILE + inset - 1, y + TILE + inset - 1
        for start, end in (
            ((left, top), (right, top)),
            ((left, bottom), (right, bottom)),
            ((left, top), (left, bottom)),
            ((right, top), (right, bottom)),
        ):
            if not dashed:
                draw.line([start, end], color)
                continue
            steps = np.linspace(0, 1, 12)
            for a, b in zip(steps[::2], steps[1::2], strict=True):
                ends = [tuple(round(p + (q - p) * t) for p, q in zip(start, end, strict=True)) for t in (a, b)]
                draw.line(ends, color)


def draw(found, columns: int = 2) -> Image.Image:
    """Draw queries and neighbors side by side: `columns` blocks, each with half of the queries."""
    queries, k = found.scores.shape
    rows, step = -(-queries // columns), TILE + GAP
    block = (k + 1) * step + 3 * GAP
    picture = Image.new("RGB", (columns * block + GAP, rows * step + GAP), "white")
    pen = ImageDraw.Draw(picture)
    for q in range(queries):
        left, y = GAP + (q // rows) * block, GAP + (q % rows) * step
        for column in range(k + 1):
            x = left + column * step + (GAP if column else 0)
            pixels = found.queries[q] if column == 0 else found.found[q, column - 1]
            picture.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC), (x, y))
            right = column == 0 or bool(found.right[q, column - 1])
            frame(pen, x, y, QUERY if column == 0 else RIGHT if right else WRONG, dashed=not right)
    return picture


def main() -> None:
    from tf_detreg import training
    from tf_detreg.analysis import neighbors

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a run, as `tf-detreg demo` leaves it")
    parser.add_argument("--to", type=pathlib.Path, default=PICTURE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = training.load_run(options.run)
    images = run.splits().test
    embeddings = training.embed(run.embedder, images).embeddings
    rng = np.random.default_rng(options.seed)
    classes = rng.permutation(images.num_classes)[:12]
    queries = [int(rng.choice(np.flatnonzero(images.labels == one))) for one in classes]
    found = neighbors.within(images, embeddings, queries, k=5)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    draw(found).quantize(24).save(options.to, optimize=True)
    first = found.right[:, 0].mean()
    print(f"{options.to}: {len(images):,} images, {100 * first:.0f} % of these queries find their class first")


if __name__ == "__main__":
    main()

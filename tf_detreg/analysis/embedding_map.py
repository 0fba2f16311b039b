"""A map of an embedding in two dimensions, for the HTML report: points by class, thumbnails where one points.

The map is drawn as SVG, so it is there without its script, which adds thumbnails, highlighting and keys. Its size is
limited whatever the data set: `POINTS` images at most, their thumbnails in one JPEG of at most `SPRITE_BYTES`.
"""

import base64
import dataclasses
import html
import io
import math
import pathlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks, extras
from tf_detreg.analysis import neighbors, report

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet

POINTS = 1000  # images on a map
PER_CLASS = 20  # images of a class, where not all images fit
TILE = 48  # side of a thumbnail in pixels; a multiple of 16, so that JPEG's blocks end where thumbnails do
SPRITE_BYTES = 2_000_000
NEAREST = 10  # neighbors by which views are compared
WIDTH, HEIGHT, MARGIN = 800, 600, 24
STYLE = pathlib.Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
SCRIPT = pathlib.Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class View:
    """The points of a map, as one method puts them.

    Args:
        name: Of the method.
        points: (n, 2).
        kept: Mean share of an item's nearest neighbors among all dimensions that are its nearest here, too.
    """

    name: str
    points: np.ndarray
    kept: float


def sample(labels: ArrayLike, points: int = POINTS, per_class: int = PER_CLASS, seed: int = 0) -> np.ndarray:
    """Return rows to draw, in order: all that fit, else those of classes drawn at random.

    Single images of many classes would show no class, so classes are drawn, and of each up to `per_class` images, or as
    many as make `points` of few classes.

    Args:
        labels: (N,) integers.
        points: At most so many rows. Default 1000.
        per_class: Images of a class where not all fit. Default 20.
        seed: Of the choice. Default 0.

    Returns:
        int64 (n,), ascending.

    Example:
        >>> sample([0, 0, 1, 1], points=10)
        array([0, 1, 2, 3])
        >>> len(sample(np.arange(100_000) // 10))
        1000
    """
    labels = np.asarray(labels)
    points = checks.integer("points", points, 1)
    if len(labels) <= points:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    # A random order of the images, sorted by a random order of the classes.
    shuffled = rng.permutation(len(labels))
    _, codes = np.unique(labels, return_inverse=True)
    ranks = rng.permutation(codes.max() + 1)[codes]
    order = shuffled[np.argsort(ranks[shuffled], kind="stable")]
    starts = np.flatnonzero(np.diff(ranks[order], prepend=-1))
    within = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    most = max(checks.integer("per_class", per_class, 1), -(-points // len(starts)))
    return np.sort(order[within < most][:points])


def views(embeddings: ArrayLike, seed: int = 0) -> list[View]:
    """Return the points in two dimensions by PCA and t-SNE, first the view that keeps more neighbors.

    Args:
        embeddings: (n, dim).
        seed: Of t-SNE. Default 0.

    Raises:
        ModuleNotFoundError: If scikit-learn is missing.

    Reference:
        van der Maaten, Hinton: Visualizing data using t-SNE. JMLR 2008.
    """
    rows = np.asarray(embeddings, np.float64)
    placed = {"PCA": _pca(rows)}
    # t-SNE compares neighborhoods, which a handful of points has not.
    if len(rows) > 3 * NEAREST:
        placed["t-SNE"] = _tsne(rows, seed)
    near = _nearest(rows)
    found = [View(name, points, _kept(near, _nearest(points))) for name, points in placed.items()]
    return sorted(found, key=lambda view: -view.kept)


def _pca(rows: np.ndarray) -> np.ndarray:
    """Return (n, 2), the coordinates along the two directions of the largest variance."""
    centered = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    points = centered @ axes[:, :-3:-1]
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return (n, 2), by t-SNE."""
    with extras.needed("A map of an embedding"):
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits

    method = TSNE(init="pca", perplexity=min(30.0, (len(rows) - 1) / 3), random_state=seed)
    # Its threads wait for each other at every step: on a busy machine that takes minutes in place of seconds.
    with threadpool_limits(1):
        points: np.ndarray = method.fit_transform(rows.astype(np.float32))
    return points


def _nearest(rows: np.ndarray) -> np.ndarray:
    """Return (n, k) each row's nearest others."""
    norms = (rows**2).sum(axis=1)
    distances = norms[:, None] + norms - 2 * rows @ rows.T
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, : min(NEAREST, len(rows) - 1)]


def _kept(near: np.ndarray, there: np.ndarray) -> float:
    both = (near[:, :, None] == there[:, None, :]).any(axis=2)
    return float(both.mean()) if both.size else 1.0


def sprites(image_set: "ImageSet", rows: np.ndarray, most: int = SPRITE_BYTES) -> bytes:
    """Return one JPEG with a thumbnail of each image, line by line, in a square grid of `columns(len(rows))`.

    Args:
        image_set: `datasets.ImageSet`.
        rows: Which images.
        most: Bytes that the JPEG may have; pictures that compress badly get a lower quality. Default 2,000,000.
    """
    from PIL import Image, ImageOps

    across = columns(len(rows))
    sheet = Image.new("RGB", (across * TILE, -(-len(rows) // across) * TILE), (127, 127, 127))
    for start in range(0, len(rows), 100):  # photos at full size, a hundred at a time
        for number, pixels in enumerate(neighbors.pixels(image_set, rows[start : start + 100]), start):
            tile = ImageOps.pad(Image.fromarray(pixels), (TILE, TILE), color=(127, 127, 127))
            sheet.paste(tile, (number % across * TILE, number // across * TILE))
    for quality in (80, 60, 40, 20, 5):
        buffer = io.BytesIO()
        sheet.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= most:
            break
    return buffer.getvalue()


def columns(count: int) -> int:
    """Return how many thumbnails of `count` are in a line."""
    return math.ceil(math.sqrt(count))


def section(image_set: "ImageSet", embeddings: ArrayLike, seed: int = 0) -> report.Section:
    """Return the map as a section of the HTML report, which needs `STYLE` and `SCRIPT`.

    Args:
        image_set: `datasets.ImageSet`.
        embeddings: (N, dim), a row an image.
        seed: Of the choice of images, and of t-SNE. Default 0.
    """
    rows = sample(image_set.labels, seed=seed)
    labels, shown = image_set.labels[rows], np.asarray(embeddings)[rows]
    found = views(shown, seed)
    total, classes = len(image_set.labels), len(np.unique(image_set.labels))
    drawn = f"All {total:,} images."
    if len(rows) < total:
        drawn = (
            f"{len(rows):,} of {total:,} images, of {len(np.unique(labels)):,} of {classes:,} classes, at random. "
            "Without all others it looks easier than the search is."
        )
    kept = " and ".join(f"{view.name} {100 * view.kept:.0f} %" for view in found)
    lead = (
        f"{drawn} A point is an image, a color a class. Two dimensions cannot show {shown.shape[1]}: of an image's "
        f"{NEAREST} nearest neighbors among these, {kept} are among its nearest on the map. Distances between groups "
        "mean little in t-SNE."
    )
    names = [str(image_set.class_names[label]) for label in labels]
    fragment = _fragment([_scaled(view.points) for view in found], [view.name for view in found], labels, names)
    picture = base64.b64encode(sprites(image_set, rows)).decode()
    fragment += (
        f'<img class="map-sprites" hidden alt="" data-columns="{columns(len(rows))}" data-tile="{TILE}" '
        f'src="data:image/jpeg;base64,{picture}"></div>'
    )
    return report.Section("Map of the embedding", lead, fragment)


def _scaled(points: np.ndarray) -> np.ndarray:
    """Return whole coordinates inside the picture, of one scale for both axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    space = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    spread = np.maximum(high - low, 1e-12)
    scaled = (points - (low + high) / 2) * (space / spread).min()
    placed: np.ndarray = np.rint(scaled + np.array([WIDTH / 2, HEIGHT / 2])).astype(int)
    return placed


def _fragment(placed: list[np.ndarray], methods: list[str], labels: np.ndarray, names: list[str]) -> str:
    """Return the map without its thumbnails and its last tag: a group a class, a circle an image."""
    groups = []
    for number, label in enumerate(np.unique(labels)):
        rows = np.flatnonzero(labels == label)
        circles = []
        for row in rows:
            at = " ".join(f"{x} {y}" for x, y in (points[row] for points in placed))
            x, y = placed[0][row]
            circles.append(f'<circle cx="{x}" cy="{y}" r="5" data-at="{at}" data-n="{row}"/>')
        # Steps of the golden angle keep the hues of neighbors in the list apart, however many there are.
        hue, shade = round(number * 137.508) % 360, number % 3 * 9
        title = f"<title>{html.escape(names[rows[0]])}</title>"
        groups.append(f'<g style="--h:{hue};--d:{shade}%">{title}{"".join(circles)}</g>')
    choices = "".join(
        f'<label><input type="radio" name="map-view" value="{n}"{" checked" * (n == 0)}>{method}</label>'
        for n, method in enumerate(methods)
    )
    return (
        '<div class="map"><div class="map-bar" hidden>'
        '<label>Class <select><option value="">all</option></select></label>'
        f'<fieldset><legend>Method</legend>{choices}</fieldset></div><div class="map-field">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map of {len(labels):,} images by {methods[0]}">'
        f"{''.join(groups)}</svg>"
        '<div class="map-tip" hidden><canvas></canvas><span></span></div></div>'
        '<p class="map-said" aria-live="polite"></p>'
    )

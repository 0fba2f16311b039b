"""Pictures of queries and their nearest neighbors, with right and wrong marked."""

import base64
import dataclasses
import html
import io
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import extras
from tf_detreg.files import replacing
from tf_detreg.images.geometry import height_width

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


STYLE = """
  .neighbors { overflow-x: auto; }
  .neighbors .row { display: flex; gap: .5rem; margin: .5rem 0; }
  .neighbors figure { margin: 0; flex: none; width: 5.5rem; font-size: .68rem; line-height: 1.25; color: var(--soft); }
  .neighbors img { width: 5rem; height: 5rem; object-fit: contain; image-rendering: auto; background: #fff;
    border: .2rem solid var(--line); border-radius: 6px; display: block; }
  .neighbors .query img { border-color: var(--accent); } .neighbors .query { margin-right: .8rem; }
  .neighbors .right img { border-color: var(--right); } .neighbors .wrong img { border: .2rem dashed var(--wrong); }
  .neighbors figcaption { overflow-wrap: anywhere; padding-top: .15rem; }
"""
_RIGHT, _WRONG, _QUERY, _UNKNOWN = "#1d8a52", "#c8413b", "#3457b2", "#9aa5b4"


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """Queries, and what a search found for each.

    Args:
        queries: uint8 `(Q, H, W, 3)`.
        found: uint8 `(Q, k, H, W, 3)`, the nearest first.
        scores: `(Q, k)`, cosines.
        query_names: Q texts, such as class names.
        found_names: Q lists of k texts.
        right: bool `(Q, k)`, or None where the truth is not known.
        accepted: bool `(Q, k)`, whether a match counts; None without a decision.
        probabilities: `(Q, k)`, that it is of the query's class; None without a decision.
        items: Q lists of k mappings, `id` and `metadata` of items of an index; None for images of a run.

    Raises:
        ValueError: If the shapes do not fit together.
    """

    queries: np.ndarray
    found: np.ndarray
    scores: np.ndarray
    query_names: Sequence[str]
    found_names: Sequence[Sequence[str]]
    right: np.ndarray | None = None
    accepted: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    items: Sequence[Sequence[Mapping[str, object]]] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.scores)
        if len(shape) != 2 or len(self.queries) != shape[0] or np.shape(self.found)[:2] != shape:
            raise ValueError(
                "`queries`, `found` and `scores` must be (Q, H, W, 3), (Q, k, H, W, 3) and (Q, k); received "
                f"{np.shape(self.queries)}, {np.shape(self.found)} and {shape}, which do not fit."
            )

    def to_html(self) -> str:
        """Return a fragment for `analysis.report`, pictures inside; it needs `neighbors.STYLE`."""
        rows = []
        for q, query in enumerate(self.queries):
            tiles = [thumbnail(query, "query", self.query_names[q], "query")]
            for n, picture in enumerate(self.found[q]):
                kind = "unknown" if self.right is None else "right" if self.right[q, n] else "wrong"
                tiles.append(thumbnail(picture, kind, self.found_names[q][n], f"{kind}, {self.scores[q, n]:.2f}"))
            rows.append(f'<div class="row">{"".join(tiles)}</div>')
        return f'<div class="neighbors">{"".join(rows)}</div>'

    def texts(self) -> list[str]:
        """Return a line a query: its matches with scores; with a decision, which count and how probable they are."""
        lines = []
        for q, names in enumerate(self.found_names):
            cells = [f"{name} {self.scores[q, n]:.3f}" for n, name in enumerate(names)]
            if self.accepted is None or self.probabilities is None:
                lines.append(f"{self.query_names[q]}: {', '.join(cells)}")
                continue
            cells = [f"{cell} ({100 * self.probabilities[q, n]:.0f} %)" for n, cell in enumerate(cells)]
            counting = [cell for n, cell in enumerate(cells) if self.accepted[q, n]]
            others = [cell for n, cell in enumerate(cells) if not self.accepted[q, n]]
            below = f"; below the threshold: {', '.join(others)}" if others else ""
            lines.append(f"{self.query_names[q]}: {', '.join(counting) or 'no match'}{below}")
        return lines

    def rows(self) -> list[dict[str, object]]:
        """Return one mapping a query for JSON: `query`, `match` (null without a decision) and its `neighbors`."""
        rows: list[dict[str, object]] = []
        for q, names in enumerate(self.found_names):
            neighbors: list[dict[str, object]] = [
                {"name": name, "score": round(float(self.scores[q, n]), 6)} for n, name in enumerate(names)
            ]
            if self.items is not None:
                neighbors = [one | dict(item) for one, item in zip(neighbors, self.items[q], strict=True)]
            if self.accepted is not None and self.probabilities is not None:
                for n, one in enumerate(neighbors):
                    one["probability"] = round(float(self.probabilities[q, n]), 4)
                    one["accepted"] = bool(self.accepted[q, n])
            match = None if self.accepted is None else bool(self.accepted[q].any())
            rows.append({"query": self.query_names[q], "match": match, "neighbors": neighbors})
        return rows

    def save_png(self, path: str | os.PathLike[str], tile: int = 128) -> pathlib.Path:
        """Write a picture: a query a row, framed blue, then its neighbors, framed green (right), red (wrong) or gray.

        Args:
            path: Where it goes; written atomically.
            tile: Side of a tile in pixels. Default 128.
        """
        with extras.needed("A picture of neighbors"):
            from matplotlib.figure import Figure
            from matplotlib.patches import Rectangle
        from PIL import Image

        gap, (q, k) = 8, self.scores.shape
        texts = [[self._caption(row, column) for column in range(k + 1)] for row in range(q)]
        fonts, unknown = _fonts("".join(text for row in texts for text in row))
        escapes = {character: f"\\u{{{character:x}}}" for character in unknown}
        texts = [[_wrapped(text.translate(escapes), max(4, tile // 6)) for text in row] for row in texts]
        # Names are shown whole, in as many lines as the longest needs.
        caption = 4 + 13 * max((text.count("\n") + 1 for row in texts for text in row), default=1)
        width, height = gap + (k + 1) * (tile + gap), gap + q * (tile + gap + caption)
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for row in range(q):
            for column in range(k + 1):
                x, y = gap + column * (tile + gap), gap + row * (tile + gap + caption)
                picture = self.queries[row] if column == 0 else self.found[row, column - 1]
                pixels = np.asarray(Image.fromarray(picture).resize((tile, tile)))
                axes.imshow(pixels, extent=(x, x + tile, y + tile, y), interpolation="nearest", aspect="auto")
                frame: dict[str, Any] = {
                    "fill": False,
                    "edgecolor": self._color(row, column),
                    "linewidth": 3 * 72 / 100,
                }
                axes.add_patch(Rectangle((x - 1.5, y - 1.5), tile + 3, tile + 3, **frame))
                # A dollar sign in a name is no mathematics.
                style: dict[str, Any] = {"family": fonts, "fontsize": 7.5, "va": "top", "parse_math": False}
                axes.text(x, y + tile + 4, texts[row][column], **style)
        axes.set(xlim=(0, width), ylim=(height, 0))
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
        return pathlib.Path(path)

    def _caption(self, row: int, column: int) -> str:
        if column == 0:
            return str(self.query_names[row])
        return f"{self.scores[row, column - 1]:.2f} {self.found_names[row][column - 1]}"

    def _color(self, row: int, column: int) -> str:
        if column == 0:
            return _QUERY
        if self.right is None:
            return _UNKNOWN
        return _RIGHT if self.right[row, column - 1] else _WRONG


def within(image_set: "ImageSet", embeddings: np.ndarray, queries: Sequence[int] | np.ndarray, k: int = 8) -> Neighbors:
    """Return the neighbors of some images of a set among all the others.

    Args:
        image_set: `datasets.ImageSet`.
        embeddings: `(N, dim)`, a row an image.
        queries: Indices of the images to look at.
        k: Neighbors of each. Default 8.
    """
    from tf_detreg import retrieval

    queries = np.asarray(queries)
    k = min(k, len(embeddings) - 1)
    ids, scores = retrieval.search(embeddings[queries], embeddings, k + 1, progress=False)
    # A query's own row is left out by its index; where ties pushed it out of the list, the last one goes.
    keep = ids != queries[:, None]
    keep[keep.all(axis=1), -1] = False
    return _pictured(image_set, queries, image_set, ids[keep].reshape(-1, k), scores[keep].reshape(-1, k))


def across(
    image_set: "ImageSet",
    embeddings: np.ndarray,
    queries: Sequence[int] | np.ndarray,
    gallery: "ImageSet",
    gallery_embeddings: np.ndarray,
    k: int = 8,
) -> Neighbors:
    """Return the neighbors of some images of a set in a gallery that numbers its classes alike.

    Args:
        image_set: `datasets.ImageSet`.
        embeddings: `(Q, dim)`, a row an image.
        queries: Indices of the images to look at.
        gallery: `datasets.ImageSet`.
        gallery_embeddings: `(N, dim)`, a row an image of the gallery.
        k: Neighbors of each. Default 8.
    """
    from tf_detreg import retrieval

    queries, k = np.asarray(queries), min(k, len(gallery_embeddings))
    ids, scores = retrieval.search(embeddings[queries], gallery_embeddings, k, progress=False)
    return _pictured(image_set, queries, gallery, ids, scores)


def _pictured(
    image_set: "ImageSet", queries: np.ndarray, gallery: "ImageSet", ids: np.ndarray, scores: np.ndarray
) -> Neighbors:
    """Return what a search for images of a set found in a gallery, with pictures and class names."""
    asked, there = (np.asarray(part.class_names, object)[part.labels] for part in (image_set, gallery))
    return Neighbors(
        queries=pixels(image_set, queries),
        found=pixels(gallery, ids),
        scores=scores,
        query_names=list(asked[queries]),
        found_names=[list(row) for row in there[ids]],
        right=gallery.labels[ids] == image_set.labels[queries][:, None],
    )


def pixels(image_set: "ImageSet", indices: np.ndarray) -> np.ndarray:
    """Return the images at `indices` (any shape), as uint8 `indices.shape + (H, W, 3)`; unreadable ones are gray."""
    indices = np.asarray(indices)
    wanted, places = np.unique(indices, return_inverse=True)
    pictures = np.full((len(wanted), *_height_width(image_set), 3), 127, np.uint8)
    for images, rows in image_set.subset(wanted).indexed(64):
        pictures[rows.numpy()] = np.clip(np.rint(images.numpy()), 0, 255).astype(np.uint8)
    return pictures[places.reshape(indices.shape)]


def thumbnail(picture: np.ndarray, kind: str, name: str, note: str) -> str:
    """Return a figure of one picture; `kind` is one of query, right, wrong, unknown."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    source = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(str(name))
    return (
        f'<figure class="{kind}"><img alt="{kind}: {text}" src="data:image/png;base64,{source}">'
        f"<figcaption>{html.escape(note)}<br>{text}</figcaption></figure>"
    )


def _wrapped(text: str, width: int) -> str:
    """Return text in lines of at most so many columns, where CJK characters and emoji take two.

    Example:
        >>> _wrapped("0.93 Straße/grün.jpg", 10).split("\\n")
        ['0.93 Straß', 'e/grün.jpg']
    """
    lines, used = [""], 0
    for character in text.replace("\n", " "):
        size = 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        if used + size > width:
            lines.append("")
            used = 0
        lines[-1] += character
        used += size
    return "\n".join(lines)


def _fonts(text: str) -> tuple[list[str], set[int]]:
    """Return installed fonts that have a text's characters between them, matplotlib's first, and what none has."""
    with extras.needed("A picture of neighbors"):
        from matplotlib import font_manager, ft2font

    families, missing = ["DejaVu Sans"], {ord(c) for c in text if not c.isspace()}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.name != families[0]):
        if not missing:
            break
        # This font draws a box with a number for every character there is.
        if "Last Resort" in entry.name or entry.style != "normal":
            continue
        try:
            has = missing & ft2font.FT2Font(entry.fname).get_charmap().keys()
        except (OSError, RuntimeError):
            continue
        if has and (entry.name == families[0] or entry.name not in families):
            families += [entry.name] * (entry.name not in families)
            missing -= has
    return families, missing


def _height_width(image_set: "ImageSet") -> tuple[int, int]:
    return height_width(image_set.size)

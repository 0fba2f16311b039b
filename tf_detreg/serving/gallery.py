"""What the search page searches: an index, and a small picture of each item, all in memory."""

import io
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tf_detreg.datasets.decode import rgb
from tf_detreg.files import readable
from tf_detreg.images.formats import open_image
from tf_detreg.retrieval.index import Index

MOST_THUMBNAILS = 50_000
MOST_NEIGHBOURS = 100


class Gallery:
    """An index with pictures to show.

    Thumbnails are made once, when the server starts: later no request leads to the file system, neither by a path nor
    by an id. A large index gets its ScaNN tree then too, where it brings none that is tuned for as many neighbours as
    can be asked for: no request waits for it.

    Args:
        index: A `retrieval.Index`.
        pictures: One an item: file names, or uint8 images `(N, H, W, 3)`. None takes the `path` in each item's
            metadata where there is one.
        side: Largest side of a thumbnail in pixels. Default 160.

    Raises:
        ValueError: If there is not one picture an item.
    """

    def __init__(self, index: Index, pictures: Sequence | np.ndarray | None = None, side: int = 160):
        self.index = index
        self.ids = index.ids
        if pictures is None:
            pictures = [index.metadata(name).get("path") for name in self.ids[:MOST_THUMBNAILS]]
        elif len(pictures) != len(index):
            raise ValueError(f"pictures must hold one an item: received {len(pictures)} for {len(index)} items.")
        index.tune(min(MOST_NEIGHBOURS, len(index)))
        with ThreadPoolExecutor() as pool:
            few = [pictures[at] for at in range(min(len(pictures), MOST_THUMBNAILS))]
            self._thumbnails = list(pool.map(lambda picture: thumbnail(picture, side), few))

    def __len__(self) -> int:
        return len(self.ids)

    def thumbnail(self, place: int) -> bytes | None:
        """JPEG bytes of the item at a place in the index; None where there is no picture."""
        return self._thumbnails[place] if 0 <= place < len(self._thumbnails) else None

    def search(self, embeddings: np.ndarray, k: int) -> list[dict]:
        """The k nearest items of one embedding, ready for JSON."""
        found = self.index.search(embeddings, k=min(k, len(self)))
        rows = zip(found.places[0], found.ids[0], found.scores[0], found.metadata[0], strict=True)
        return [self._match(int(place), name, float(score), facts) for place, name, score, facts in rows]

    def samples(self, count: int) -> list[int]:
        """Places of some items with pictures, spread over the gallery."""
        shown = [place for place, picture in enumerate(self._thumbnails) if picture is not None]
        return [shown[at * len(shown) // count] for at in range(count)] if len(shown) >= count else shown

    def _match(self, place: int, name, score: float, facts: dict) -> dict:
        label = facts.get("label", facts.get("class"))
        return {
            "place": place,
            "id": readable(name) if isinstance(name, str) else name,
            "label": None if label is None else readable(str(label)),
            "score": round(score, 4),
            "picture": self.thumbnail(place) is not None,
        }


def thumbnail(picture: str | pathlib.Path | np.ndarray | None, side: int) -> bytes | None:
    """A small JPEG; None where the picture cannot be read."""
    from PIL import Image, ImageOps

    if picture is None:
        return None
    try:
        with Image.fromarray(np.asarray(picture)) if isinstance(picture, np.ndarray) else open_image(picture) as image:
            image.draft("RGB", (2 * side, 2 * side))
            small = rgb(ImageOps.exif_transpose(image))
    except Exception:  # Pillow's decoders raise whatever they like on broken files
        return None
    if max(small.size) < side // 2:
        # Tiny pictures keep their sharp pixels.
        small = small.resize([length * (side // max(small.size)) for length in small.size], Image.Resampling.NEAREST)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

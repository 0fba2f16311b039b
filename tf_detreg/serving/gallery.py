"""What the search page searches: an index, with a picture of each item."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import checks
from tf_detreg.files import readable
from tf_detreg.images import UnreadableImage, reference
from tf_detreg.images.color import rgb
from tf_detreg.index import Index

if TYPE_CHECKING:
    from PIL import Image

MOST_THUMBNAILS = 50_000
MOST_NEIGHBORS = 100
FULL_SIDE = 1600  # of a picture in the detail view, in pixels


class Gallery:
    """An index with pictures to show.

    Thumbnails are made once, when the server starts. Later a request names an item by its number alone, and the only
    files that are read are those that the index names. A large index gets its ScaNN tree at the start too, where it
    brings none that is tuned for as many neighbors as can be asked for: no request waits for it.

    Args:
        index: A `index.Index`.
        pictures: One an item: file names, or uint8 images `(N, H, W, 3)`. Default: the `path` in each item's
            metadata where there is one.
        side: Largest side of a thumbnail in pixels. Default 240.

    Raises:
        ValueError: If there is not one picture an item.
    """

    def __init__(self, index: Index, pictures: Sequence[Any] | np.ndarray | None = None, side: int = 240) -> None:
        self.index = index
        self.ids = index.ids
        self.fingerprint = index.fingerprint
        if pictures is None:
            pictures = [index.metadata(id).get("path") for id in self.ids]
        elif len(pictures) != len(index):
            raise checks.invalid("pictures", f"be one an item, {len(index)}", f"{len(pictures)}")
        self._pictures = pictures
        index.tune(min(MOST_NEIGHBORS, len(index)))
        with ThreadPoolExecutor() as pool:
            few = [pictures[item] for item in range(min(len(pictures), MOST_THUMBNAILS))]
            self._thumbnails = list(pool.map(lambda picture: jpeg(picture, side), few))

    def __len__(self) -> int:
        return len(self.ids)

    def thumbnail(self, item: int) -> bytes | None:
        """Return a small JPEG of an item; None where there is no picture."""
        return self._thumbnails[item] if 0 <= item < len(self._thumbnails) else None

    def picture(self, item: int) -> bytes | None:
        """Return a JPEG of an item, upright, as large as it is up to 1600 pixels; None where there is no picture."""
        return jpeg(self._pictures[item], FULL_SIDE) if 0 <= item < len(self) else None

    def search(self, embeddings: np.ndarray, k: int) -> list[dict[str, Any]]:
        """Return the k nearest items of one embedding, ready for JSON; with a decision, what it says about each."""
        found = self.index.search(embeddings, k=min(k, len(self)))
        rows = zip(found.positions[0], found.scores[0], found.metadata[0], strict=True)
        matches = [{**self._summary(int(item), facts), "score": round(float(score), 4)} for item, score, facts in rows]
        if found.accepted is not None and found.probabilities is not None:
            for match, accepted, probability in zip(matches, found.accepted[0], found.probabilities[0], strict=True):
                match |= {"accepted": bool(accepted), "probability": round(float(probability), 4)}
        return matches

    def neighbors(self, item: int, k: int) -> list[dict[str, Any]]:
        """Return the k nearest items of an item, without itself; one less than `MOST_NEIGHBORS` at most."""
        found = self.search(self.index.embeddings[item][None], min(k + 1, MOST_NEIGHBORS))
        return [match for match in found if match["item"] != item][:k]

    def facts(self, item: int) -> dict[str, Any]:
        """Return all that is known about an item, ready for JSON."""
        metadata = self.index.metadata(self.ids[item])
        others = {
            readable(str(key)): readable(str(value))[:1000]
            for key, value in metadata.items()
            if key not in ("path", "label", "class")
        }
        path = metadata.get("path")
        return {
            **self._summary(item, metadata),
            "path": None if path is None else readable(str(path)),
            "metadata": others,
        }

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Return some items with pictures, spread over the gallery."""
        shown = [item for item, picture in enumerate(self._thumbnails) if picture is not None]
        if len(shown) > count:
            shown = [shown[at * len(shown) // count] for at in range(count)]
        return [self._summary(item, self.index.metadata(self.ids[item])) for item in shown]

    def _summary(self, item: int, metadata: dict[str, Any]) -> dict[str, Any]:
        id, label = self.ids[item], metadata.get("label", metadata.get("class"))
        path = metadata.get("path", id if isinstance(id, str) else None)
        return {
            "item": item,
            "place": item,  # its name in 0.1.0
            "id": readable(id) if isinstance(id, str) else id,
            "label": None if label is None else readable(str(label)),
            "name": f"item {id}" if path is None else readable(os.path.basename(str(path)) or str(path)),
            "picture": self.thumbnail(item) is not None,
        }


def _shown(picture: str | os.PathLike[str] | np.ndarray, side: int) -> "Image.Image":
    """Return a picture as the model sees it, upright; a file's may be smaller than it is, but not than `side`."""
    if not isinstance(picture, np.ndarray):
        return reference.thumbnail(picture, side)
    from PIL import Image

    return rgb(Image.fromarray(picture))


def jpeg(picture: str | os.PathLike[str] | np.ndarray | None, side: int) -> bytes | None:
    """Return a picture as the model sees it, as a JPEG.

    Args:
        picture: A file, or uint8 `(H, W, 3)`.
        side: Largest side of the result in pixels.

    Returns:
        The bytes; None where the picture cannot be read, is of another format than the documented ones, or too large.
    """
    from PIL import Image

    if picture is None:
        return None
    try:
        small = _shown(picture, side)
    except UnreadableImage:
        return None
    if max(small.size) < side // 2:
        # Tiny pictures keep their sharp pixels.
        times = min(side, 480) // max(small.size)
        small = small.resize((small.width * max(1, times), small.height * max(1, times)), Image.Resampling.NEAREST)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()

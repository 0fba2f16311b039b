"""What the search page searches: an index, with a picture of each item."""

import io
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import checks
from tf_detreg.files import readable
from tf_detreg.images import UnreadableImage, reference
from tf_detreg.images.color import rgb
from tf_detreg.index import Index, Shards, sharding
from tf_detreg.index.items import of_text

if TYPE_CHECKING:
    from PIL import Image

MOST_THUMBNAILS = 50_000
MOST_NEIGHBORS = 100
FULL_SIDE = 1600  # of a picture in the detail view, in pixels


class Gallery:
    """An index, or shards of one, with pictures to show; what others change in it is seen by the next request.

    Items have numbers, which stay while the server runs: new ones get new numbers. Thumbnails of the first 50,000 items
    are made when the server starts, and others when they are first asked for; so many are kept. A request names an item
    by its number alone, and the only files that are read are those that the index names. A large index gets its search
    tree at the start too, where it brings none that is tuned for as many neighbors as can be asked for: no request
    waits for it.

    Args:
        index: An `index.Index`, or `index.Shards` on this machine.
        pictures: One an item, in the order of `rows()`: file names, or uint8 images `(N, H, W, 3)`. Default: the `path`
            in each item's metadata where there is one.
        side: Largest side of a thumbnail in pixels. Default 240.

    Raises:
        ValueError: If there is not one picture an item.
        TypeError: If a shard is a client of another machine: nobody tells then what changed in it.
    """

    def __init__(
        self,
        index: Index | Shards,
        pictures: Sequence[str | os.PathLike[str] | np.ndarray | None] | np.ndarray | None = None,
        side: int = 240,
    ):
        if pictures is not None and len(pictures) != len(index):
            raise ValueError(f"`pictures` must hold one an item, {len(index)}; received {len(pictures)}.")
        self.index, self._side = index, side
        self._lock = threading.Lock()
        # What changes, each with the version and the mark of the items that were last taken over.
        self._parts = index.indexes if isinstance(index, Shards) else [index]
        self._versions, self._marks = [-1] * len(self._parts), [0] * len(self._parts)
        self._ids: list[str | int] = []  # by number
        self._numbers: dict[str | int, int] = {}
        self._given: dict[str | int, Any] = {}
        self._thumbnails: dict[int, bytes | None] = {}
        self._follow()
        if pictures is not None:
            self._given = dict(zip(self._ids, pictures, strict=True))
        for part in self._parts:
            if len(part):
                part.tune(min(MOST_NEIGHBORS, len(part)))
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.thumbnail, range(min(len(self._ids), MOST_THUMBNAILS))))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fingerprints(self) -> set[str]:
        """Return those of the models that made it, several where only some shards were refreshed; none if unknown."""
        return {part.fingerprint for part in self._parts if part.fingerprint is not None}

    def _follow(self) -> None:
        """Take over what has changed since the last request; cheap where nothing has."""
        for at, part in enumerate(self._parts):
            version = part.version
            if version != self._versions[at]:
                self._take_over(at, version)

    def _take_over(self, at: int, version: int) -> None:
        """Give numbers to the new items of the index, or of one of its shards."""
        part = self._parts[at]
        with self._lock:
            mark, ids = part.added_since(self._marks[at])
            # All of them are new: rewritten, and themselves what they were, or replaced one by one.
            compacted = self._marks[at] > 0 and len(ids) == len(part) and not part.removed_vectors
            for id in ids:
                number = self._numbers.setdefault(id, len(self._ids))
                if number == len(self._ids):
                    self._ids.append(id)
                elif not compacted:
                    self._thumbnails.pop(number, None)
                    self._given.pop(id, None)
            self._marks[at], self._versions[at] = mark, version

    def has(self, item: int) -> bool:
        """Return whether there is an item of this number."""
        self._follow()
        return 0 <= item < len(self._ids) and self._ids[item] in self.index

    def thumbnail(self, item: int) -> bytes | None:
        """Return a small JPEG of an item; None where there is no picture."""
        found = self._thumbnails.get(item, b"")
        if found == b"":
            found = jpeg(self._picture(item), self._side)
            with self._lock:
                while len(self._thumbnails) >= MOST_THUMBNAILS:  # those that were made first make place
                    del self._thumbnails[next(iter(self._thumbnails))]
                self._thumbnails[item] = found
        return found

    def picture(self, item: int) -> bytes | None:
        """Return a JPEG of an item, upright, as large as it is up to 1600 pixels; None where there is no picture."""
        return jpeg(self._picture(item), FULL_SIDE)

    def _picture(self, item: int) -> Any:
        id = self._ids[item]
        return self._given[id] if id in self._given else self._metadata(item).get("path")

    def _metadata(self, item: int) -> dict[str, Any]:
        """Return what is known about an item; nothing where another request has removed it."""
        id = self._ids[item]
        try:
            return self.index.metadata(id)
        except ValueError:
            if id in self.index:
                raise
            return {}

    def search(self, embeddings: np.ndarray, k: int) -> list[dict[str, Any]]:
        """Return the k nearest items of one embedding, ready for JSON; with a decision, what it says about each."""
        # Shards use the decision that they keep only where it is given.
        options = {"progress": False, "decision": self.index.decision}
        found = sharding.up_to(self.index, len(self), embeddings, k, **options)
        if found is None:
            return []
        self._follow()
        matches = []
        for at, (id, facts) in enumerate(zip(found.ids[0], found.metadata[0], strict=True)):
            if id not in self._numbers:
                continue  # it was added in this moment, and removed
            match = {**self._summary(self._numbers[id], facts), "score": round(float(found.scores[0, at]), 4)}
            if found.accepted is not None and found.probabilities is not None:
                probability = round(float(found.probabilities[0, at]), 4)
                match |= {"accepted": bool(found.accepted[0, at]), "probability": probability}
            matches.append(match)
        return matches

    def neighbors(self, item: int, k: int) -> list[dict[str, Any]]:
        """Return the k nearest items of an item, without itself; one less than `MOST_NEIGHBORS` at most."""
        found = self.search(self.index.vector(self._ids[item])[None], min(k + 1, MOST_NEIGHBORS))
        return [match for match in found if match["item"] != item][:k]

    def facts(self, item: int) -> dict[str, Any]:
        """Return all that is known about an item, ready for JSON."""
        metadata = self.index.metadata(self._ids[item])
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
        self._follow()
        with self._lock:
            pictured = sorted(item for item, picture in self._thumbnails.items() if picture is not None)
        shown = [item for item in pictured if self.has(item)]
        if len(shown) > count:
            shown = [shown[at * len(shown) // count] for at in range(count)]
        return [self._summary(item, self._metadata(item)) for item in shown]

    def put(self, id: str, embedding: np.ndarray, metadata: Mapping[str, object], fingerprint: str | None) -> bool:
        """Add an item, or replace that of the same id.

        Returns:
            Whether one was replaced.

        Raises:
            ValueError: If JSON cannot hold the metadata, another model made the index, or its decision needs a label.
        """
        decision = self.index.decision
        if decision is not None and decision.score == "margin" and not isinstance(metadata.get("label"), str | int):
            raise checks.invalid(
                "metadata",
                "hold `label`, a text or a whole number",
                checks.shown(metadata),
                'The index has a decision by "margin", which compares the classes of the nearest items.',
            )
        return bool(self.index.upsert(embedding[None], [of_text(id, self.index)], [metadata], fingerprint))

    def remove(self, id: str) -> bool:
        """Remove an item; False where there is none of this id."""
        known = of_text(id, self.index)
        if known not in self.index:
            return False
        self.index.remove([known])
        return True

    def number(self, id: str) -> int:
        """Return the number of an item."""
        self._follow()
        return self._numbers[of_text(id, self.index)]

    def _summary(self, item: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
        id, label = self._ids[item], metadata.get("label", metadata.get("class"))
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

"""A gallery on disk that answers queries."""

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tf_detreg.retrieval import approximate, checks, exact, index_folder
from tf_detreg.retrieval.matches import Matches

_SCANN_FROM = 50_000  # items; below, exact search answers one query within some milliseconds
_SHALLOWEST = 10  # neighbours it is tuned for at least, so that a search a little deeper does not build it again
_ENGINES = ("auto", "exact", "scann")


class Index:
    """Embeddings with ids and metadata: build, search, save, load.

    Scores are cosines. The vectors of a loaded index stay on disk and are mapped into memory when they are read.

    Args:
        embeddings: (N, dim) vectors; they are normalised if they are not of length one.
        ids: N different strings or integers. Defaults to 0 … N-1.
        metadata: N mappings that JSON can hold, such as `{"label": "daisy", "path": "1.jpg"}`. Defaults to empty ones.
        fingerprint: What identifies the model, as `retrieval.fingerprint` makes it. Defaults to None: unknown. A query
            with another fingerprint is refused.

    Raises:
        ValueError: If vectors are not finite or are zero, ids repeat, or lengths do not fit.

    Example:
        >>> index = Index([[1.0, 0.0], [0.0, 1.0]], ids=["east", "north"], metadata=[{"land": 1}, {"land": 2}])
        >>> index.search([[0.9, 0.1]], k=1).ids
        [['east']]
        >>> index.search([[0.9, 0.1]], k=1, where={"land": 2}).ids
        [['north']]
    """

    def __init__(
        self,
        embeddings,
        ids: Sequence[str | int] | None = None,
        metadata: Sequence[Mapping[str, object]] | None = None,
        fingerprint: str | None = None,
    ):
        self._vectors, _ = checks.unit_rows(embeddings, "embeddings")
        count = len(self._vectors)
        self._ids = _plain_ids(range(count) if ids is None else ids, count)
        self._metadata = [{} for _ in range(count)] if metadata is None else _plain_metadata(metadata)
        if len(self._metadata) != count:
            raise ValueError(
                f"`metadata` must hold one mapping for each of the {count} vectors; received {len(metadata)}."
            )
        self.fingerprint = fingerprint
        self._tree: approximate.Calibrated | None = None
        self._rows: dict[str | int, int] | None = None

    def __len__(self) -> int:
        return len(self._vectors)

    def __repr__(self) -> str:
        return f"Index({len(self)} items, {self.dimension} dimensions, model {self.fingerprint or 'unknown'})"

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return self._vectors.shape[1]

    @property
    def ids(self) -> list[str | int]:
        """The ids in order."""
        return list(self._ids)

    @property
    def embeddings(self) -> np.ndarray:
        """(N, dim) unit rows, read-only; mapped from disk in a loaded index."""
        view = self._vectors.view()
        view.flags.writeable = False
        return view

    def metadata(self, id: str | int) -> dict[str, object]:
        """What is known about an item.

        Raises:
            ValueError: If there is none of this id.
        """
        if self._rows is None:  # made when it is first needed: a search never asks
            self._rows = {known: row for row, known in enumerate(self._ids)}
        try:
            return dict(self._metadata[self._rows[id]])
        except (KeyError, TypeError):
            raise ValueError(f"`id`={id!r} is not in the index.") from None

    def add(
        self,
        embeddings,
        ids: Sequence[str | int] | None = None,
        metadata: Sequence[Mapping[str, object]] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Add items; arguments as for the class. Ids default to the next integers.

        Raises:
            ValueError: If the new items do not fit or their ids are taken.
        """
        embeddings, _ = checks.unit_rows(embeddings, "embeddings")
        if embeddings.shape[1] != self.dimension:
            raise ValueError(
                f"`embeddings` have {embeddings.shape[1]} dimensions and the index has {self.dimension}. "
                "Embed the new items with the model that embedded the index."
            )
        count = len(embeddings)
        ids = range(len(self), len(self) + count) if ids is None else ids
        more = Index(embeddings, ids, metadata, fingerprint)
        self._refuse_other_model(fingerprint)
        all_ids = _plain_ids([*self._ids, *more._ids], len(self) + len(more))
        self._vectors = np.concatenate([self._vectors, more._vectors])
        self._ids, self._metadata = all_ids, [*self._metadata, *more._metadata]
        self._tree = self._rows = None

    def search(
        self,
        queries,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        fingerprint: str | None = None,
        engine: str = "auto",
        progress: bool | None = None,
    ) -> Matches:
        """The k nearest items of each query.

        Args:
            queries: (Q, dim), or (dim,) for one query.
            k: Defaults to 10.
            where: Only items whose metadata has these values, such as `{"label": "daisy"}`; a list of values means any
                of them.
            fingerprint: Of the model that made the queries; refused if the index knows another one.
            engine: `"auto"`, the default: ScaNN from 50,000 items on and without `where`, exact search otherwise.
            progress: Whether to show a progress bar. None, the default, shows it in a terminal.

        Returns:
            A `Matches`.

        Raises:
            ValueError: If queries do not fit, the model is another one, or `k` is larger than what can be found.
        """
        queries = np.asarray(queries)
        queries, _ = checks.unit_rows(queries[None] if queries.ndim == 1 else queries, "queries")
        if queries.shape[1] != self.dimension:
            raise ValueError(
                f"`queries` have {queries.shape[1]} dimensions and the index has {self.dimension}. "
                "Embed the queries with the model that embedded the index."
            )
        self._refuse_other_model(fingerprint)
        if engine not in _ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(map(repr, _ENGINES))}; received {engine!r}.")
        rows = self._where(where)
        count = len(self) if rows is None else len(rows)
        if count == 0:
            raise ValueError(f"`where`={where!r} matches no item of the index.")
        (k,) = checks.ranks_at(k, count)
        notice = None
        if engine == "scann" or (engine == "auto" and rows is None and count >= _SCANN_FROM):
            notice = approximate.available() or self._no_tree(rows, count)
            if notice is None:
                tree = self._tuned(k, progress)
                places, scores = tree.tree.search(queries, k, progress=progress)
                if (places >= 0).all():
                    return self._matches(places, scores, "scann", tree.recall, None)
                notice = "A ScaNN leaf held too few items; exact search answered instead."
        gallery = self._vectors if rows is None else np.ascontiguousarray(self._vectors[rows])
        places, scores = exact.search(queries, gallery, k, progress=progress)
        return self._matches(places if rows is None else rows[places], scores, "exact", 1.0, notice)

    def tune(self, k: int = 10, progress: bool | None = None) -> float | None:
        """Build and tune the ScaNN tree now, so that `save` keeps it and no search has to wait for it.

        Args:
            k: The deepest search that it is meant for. Defaults to 10.
            progress: Whether to show a progress bar. None, the default, shows it in a terminal.

        Returns:
            The measured share of the true neighbours that it finds; None where exact search answers: below 50,000
            items, and where ScaNN cannot be installed.

        Raises:
            ValueError: If `k` is larger than the gallery.
        """
        (k,) = checks.ranks_at(k, len(self))
        if len(self) < _SCANN_FROM or approximate.available() is not None:
            return None
        return self._tuned(k, progress).recall

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Write the index as a folder, atomically: a reader finds the old one or the new one, whole.

        Args:
            path: The folder. An index that is there is replaced; anything else is refused.

        Returns:
            The path.

        Raises:
            ValueError: If `path` exists and is not an index.
            OSError: If it cannot be written.
        """
        path = pathlib.Path(path)
        contents = index_folder.Contents(self._vectors, self._ids, self._metadata, self.fingerprint, self._tree)
        index_folder.write(path, contents)
        return path

    @staticmethod
    def check_place(path: str | os.PathLike) -> None:
        """Raise now, before hours of embedding, what `save` would raise in the end.

        Raises:
            ValueError: If `path` exists and is not an index.
            OSError: If nothing can be written there.
        """
        index_folder.check_place(pathlib.Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike, *, verify: bool = True) -> "Index":
        """Open an index that `save` wrote; the vectors stay on disk.

        Args:
            path: The folder.
            verify: Defaults to True: read all of it once and compare its checksums. False checks sizes and counts
                alone, for very large galleries.

        Raises:
            ValueError: If it is not an index, is damaged, or was written by a newer version.
        """
        contents = index_folder.read(pathlib.Path(path), verify)
        index = cls.__new__(cls)
        index._vectors, index._ids, index._metadata, index.fingerprint, index._tree = contents
        index._rows = None
        return index

    def _matches(
        self, places: np.ndarray, scores: np.ndarray, engine: str, recall: float, notice: str | None
    ) -> Matches:
        ids = [[self._ids[place] for place in row] for row in places]
        metadata = [[dict(self._metadata[place]) for place in row] for row in places]
        return Matches(ids, scores, places, metadata, engine, recall, notice)

    def _refuse_other_model(self, fingerprint: str | None) -> None:
        if fingerprint is not None and self.fingerprint is not None and fingerprint != self.fingerprint:
            raise ValueError(
                f"`fingerprint`={fingerprint!r}: the index was made by another model ({self.fingerprint!r}). "
                "Build the index again with this model, or embed the queries with that one."
            )

    def _where(self, where: Mapping[str, object] | None) -> np.ndarray | None:
        if not where:
            return None
        if not isinstance(where, Mapping):
            raise ValueError(f"`where` must be a mapping such as {{'label': 'daisy'}}; received {where!r}.")
        # A set becomes a list: an item's own value may be a list, which a set cannot be asked for.
        wanted = {
            key: list(value) if isinstance(value, list | tuple | set) else [value] for key, value in where.items()
        }
        return np.flatnonzero(
            [all(key in item and item[key] in values for key, values in wanted.items()) for item in self._metadata]
        )

    def _no_tree(self, rows: np.ndarray | None, count: int) -> str | None:
        if rows is not None:
            return "Exact search was used: a ScaNN tree cannot filter."
        if count < approximate.SMALLEST_GALLERY:
            return f"Exact search was used: {count} items are too few for a ScaNN tree."
        return None

    def _tuned(self, k: int, progress: bool | None) -> approximate.Calibrated:
        """A tree, tuned on items of the gallery as queries; built once, and again for a deeper search.

        An item does not count as its own neighbour here: real queries are not in the gallery.
        """
        depth = min(max(k, _SHALLOWEST), len(self) - 1)
        if self._tree is None or self._tree.depth < min(k, depth):
            rows = np.sort(np.random.default_rng(0).permutation(len(self))[: 2 * approximate.SAMPLE])
            sample = np.ascontiguousarray(self._vectors[rows])
            self._tree = approximate.calibrate(sample, self._vectors, depth, rows, progress=progress)
        return self._tree


def fingerprint(embedder) -> str:
    """A short text that is the same for the same weights, and another one after any training step.

    Args:
        embedder: A Keras model; of a `MetricModel`, its embedder counts alone.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> fingerprint(model) == fingerprint(model), len(fingerprint(model))
        (True, 16)
    """
    digest = hashlib.sha256()
    for weight in getattr(embedder, "embedder", embedder).get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def _plain_metadata(metadata: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    for row, item in enumerate(metadata):
        if not isinstance(item, Mapping) or not all(isinstance(key, str) for key in item):
            raise ValueError(f"`metadata` must be mappings whose keys are strings; received {item!r} (row {row}).")
    return [dict(item) for item in metadata]


def _plain_ids(ids: Sequence[str | int], count: int) -> list[str | int]:
    ids = [id.item() if isinstance(id, np.generic) else id for id in ids]
    if len(ids) != count:
        raise ValueError(f"`ids` must hold one id for each of the {count} vectors; received {len(ids)}.")
    wrong = next((id for id in ids if not isinstance(id, str | int)), None)
    if wrong is not None:
        raise ValueError(f"`ids` must be strings or integers; received {wrong!r}.")
    if len(set(ids)) != count:
        seen = set()
        twice = next(id for id in ids if id in seen or seen.add(id))
        raise ValueError(f"`ids` must all differ; {twice!r} occurs twice.")
    return ids

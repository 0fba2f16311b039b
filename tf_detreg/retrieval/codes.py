r"""Compressed vectors: a small copy of a gallery that lists candidates, which the vectors on disk then score.

| kind | bytes a dimension | what is compared |
|---|---|---|
| `"float16"` | 2 | the cosine, in half precision |
| `"int8"` | 1 | the cosine of \(\mathrm{round}(127\, x_d / \max |x_d|)\) |
| `"binary"` | 1/8 | how many signs of \((Qx)_d - \mathrm{mean}((Qx)_d)\) differ, \(Q\) a random rotation |

`"product"`, 1/4 byte a dimension in the leaves of a tree, is ScaNN's: see `product`.

With fewer dimensions the vectors are first projected to the principal axes of their second moments,
\(X^\top X = V \Lambda V^\top,\ x \mapsto x V_{1..m}\): the projection that keeps inner products best. All items are
looked at; how many candidates are scored again is tuned against exact search, and the share of true neighbors that are
found is measured on other queries.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tf_detreg import checks
from tf_detreg.progress import ticker
from tf_detreg.retrieval import approximate, product
from tf_detreg.retrieval.rescoring import Rescoring

KINDS = ("float16", "int8", "binary", product.KIND)  # ScaNN makes the last one
_FILES = ("codes.npy", "basis.npy", "scale.npy")
_BLOCK = 65_536
_SAMPLE = 50_000  # vectors that axes, means and largest entries are computed from


class Layout(NamedTuple):
    """How vectors are compressed.

    Args:
        kind: One of `KINDS`.
        dimensions: How many are kept; None keeps all.
    """

    kind: str
    dimensions: int | None = None

    def checked(self, dim: int) -> "Layout":
        """Return the layout.

        Raises:
            ValueError: If the kind is none, or the dimensions are no integer from 1 to `dim`.
        """
        checks.choice("kind", self.kind, KINDS)
        if self.kind == product.KIND and self.dimensions is not None:
            raise ValueError(f"`dimensions` must be None for `kind`={self.kind!r}; received {self.dimensions!r}.")
        if self.dimensions is not None:
            checks.integer("dimensions", self.dimensions, 1, dim)
        return self


class Codes(Rescoring):
    """Compressed vectors with their setting.

    Args:
        kind: One of `KINDS`.
        codes: (N, m) float16 or int8, or (N, m / 64 rounded up) uint64 of signs.
        basis: (dim, m) float32 orthonormal columns; (0, 0) where the vectors are taken as they are.
        scale: (m,) float32: the largest entries for `"int8"`, the means for `"binary"`, else empty.
        gallery: (N, dim) float32 unit rows, on disk perhaps.
        rescored: Candidates of a query. Default None: all.
    """

    def __init__(
        self,
        kind: str,
        codes: np.ndarray,
        basis: np.ndarray,
        scale: np.ndarray,
        gallery: np.ndarray,
        rescored: int | None = None,
    ):
        super().__init__(gallery, rescored)
        self.kind, self.codes, self.basis, self.scale = kind, codes, basis, scale

    @classmethod
    def build(cls, gallery: np.ndarray, k: int, layout: Layout, progress: bool | None = False) -> "Codes":
        """Compress a gallery.

        Args:
            gallery: (N, dim) float32 unit rows.
            k: Neighbors that will be asked for.
            layout: How.
            progress: Whether to show progress; None shows it in a terminal. Default False.
        """
        size, dim = gallery.shape
        layout.checked(dim)
        chosen = np.sort(np.random.default_rng(0).permutation(size)[:_SAMPLE])
        sample = np.asarray(gallery[chosen], np.float64)
        basis = np.empty((0, 0), np.float32)
        if layout.dimensions not in (None, dim):
            _, axes = np.linalg.eigh(sample.T @ sample)
            basis = np.ascontiguousarray(axes[:, ::-1][:, : layout.dimensions], np.float32)
            sample = sample @ basis
        if layout.kind == "binary":
            # Of axes that differ in their variance most signs would tell little; after a rotation all tell the same.
            turned = np.linalg.qr(np.random.default_rng(0).standard_normal((sample.shape[1], sample.shape[1])))[0]
            sample = sample @ turned
            basis = np.ascontiguousarray(basis @ turned if basis.size else turned, np.float32)
        scale = np.empty(0, np.float32)
        if layout.kind == "int8":
            scale = np.maximum(np.abs(sample).max(axis=0), 1e-12).astype(np.float32)
        elif layout.kind == "binary":
            scale = sample.mean(axis=0).astype(np.float32)
        made = cls(layout.kind, np.empty(0), basis, scale, gallery)
        blocks = []
        with ticker("Compressing", size, progress) as tick:
            for start in range(0, size, _BLOCK):
                blocks.append(made.encoded(made.projected(np.asarray(gallery[start : start + _BLOCK]))))
                tick(len(blocks[-1]))
        made.codes = np.concatenate(blocks)
        return made

    def projected(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (n, dim) in the dimensions that are kept."""
        return vectors @ self.basis if self.basis.size else vectors

    def encoded(self, vectors: np.ndarray) -> np.ndarray:
        """Return projected vectors (n, m) as they are stored."""
        if self.kind == "float16":
            return vectors.astype(np.float16)
        if self.kind == "int8":
            return np.clip(np.rint(vectors * (127 / self.scale)), -127, 127).astype(np.int8)
        bits = np.packbits(vectors > self.scale, axis=1)
        return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return (Q, count) the items whose codes are nearest."""
        asked = self.projected(queries)
        ids = np.empty((len(queries), 0), np.int64)
        near = np.empty((len(queries), 0), np.float32)
        for start, scores in self._scores(asked):
            if scores.shape[1] > count:
                some = np.argpartition(-scores, count - 1, axis=1)[:, :count]
                scores = np.take_along_axis(scores, some, axis=1)
            else:
                some = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
            ids, near = np.concatenate([ids, some + start], 1), np.concatenate([near, scores], 1)
            if ids.shape[1] > count:
                best = np.argpartition(-near, count - 1, axis=1)[:, :count]
                ids, near = np.take_along_axis(ids, best, axis=1), np.take_along_axis(near, best, axis=1)
        return ids

    def _scores(self, asked: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row of each block, and how near its codes are to the queries."""
        weighted = asked * (self.scale / 127) if self.kind == "int8" else asked
        signs = self.encoded(asked) if self.kind == "binary" else None
        for start in range(0, len(self.codes), _BLOCK):
            block = self.codes[start : start + _BLOCK]
            if signs is None:
                yield start, weighted @ block.astype(np.float32).T
            else:
                differing = [np.bitwise_count(block ^ line).sum(axis=1, dtype=np.int32) for line in signs]
                yield start, -np.asarray(differing, np.float32)

    @property
    def layout(self) -> Layout:
        """Return how the vectors are compressed."""
        return Layout(self.kind, self.basis.shape[1] if self.basis.size else None)

    @property
    def bytes_an_item(self) -> float:
        """Return what an item takes in memory; the vector itself stays on disk."""
        return self.codes.nbytes / max(len(self.codes), 1)

    def settings(self) -> dict[str, object]:
        """Return what was chosen, for reports."""
        return {
            "candidates rescored": self.rescored,
            "dimensions": self.layout.dimensions or self.dim,
            "bytes an item": self.bytes_an_item,
        }


def files(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the files that `save` writes."""
    return _FILES


def save(tuned: approximate.Calibrated, folder: pathlib.Path) -> dict[str, Any]:
    """Write codes into a new folder.

    Returns:
        What `load` has to know besides the files; plain JSON.
    """
    made = checks.instance("tuned", tuned.tree, Codes, "what `compress` made")  # the index names the module by the kind
    folder.mkdir()
    for name, array in zip(_FILES, (made.codes, made.basis, made.scale), strict=True):
        np.save(folder / name, array, allow_pickle=False)
    facts = {"kind": made.kind, "dimensions": made.layout.dimensions, "rescored": made.rescored}
    return facts | tuned.facts()


def load(
    folder: pathlib.Path, vectors: pathlib.Path, gallery: np.ndarray, facts: Mapping[str, Any]
) -> approximate.Calibrated | None:
    """Map codes that `save` wrote.

    Raises:
        KeyError, TypeError, ValueError: If `facts` or the files do not fit.
    """
    layout = Layout(str(facts["kind"]), facts["dimensions"]).checked(gallery.shape[1])
    codes, basis, scale = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _FILES)
    made = Codes(layout.kind, codes, np.asarray(basis), np.asarray(scale), gallery, int(facts["rescored"]))
    expected = made.encoded(made.projected(np.asarray(gallery[:1])))
    if codes.dtype != expected.dtype or codes.shape != (len(gallery), expected.shape[1]):
        raise ValueError("its codes do not fit its vectors")
    return approximate.Calibrated.of(made, facts)

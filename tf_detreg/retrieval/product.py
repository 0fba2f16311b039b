r"""Product quantization by ScaNN: leaves with 4-bit codes in memory, whose candidates the vectors on disk then score.

A vector in the leaf of center \(c\) is kept as the codes of \(x - c\): one of 16 codewords for every two dimensions,
trained to keep inner products (anisotropic loss). That is 1/4 byte a dimension, and 4 bytes for the leaf. In contrast
to the other compressed forms (`codes`) a query looks at some leaves only, so that this saves memory *and* time; ScaNN's
tree as `approximate` builds it holds a copy of the vectors beside its codes, in memory.

Reference:
    Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", 2020.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tf_detreg.retrieval import approximate, rescoring, saved_tree, scann_library
from tf_detreg.retrieval.approximate import LAYOUTS, Layout

KIND = "product"
files, save = saved_tree.files, saved_tree.save


class Product(approximate.Tree):
    """A ScaNN searcher of codes alone, with its settings.

    Args:
        searcher: What ScaNN built or loaded.
        gallery: (N, dim) float32 unit rows, on disk perhaps.
        layout: How it is laid out.
        visited: Leaves that a query visits. Default: all.
        rescored: Candidates that are scored by the vectors. Default: all.
    """

    def __init__(
        self,
        searcher: Any,
        gallery: np.ndarray,
        layout: Layout,
        visited: int | None = None,
        rescored: int | None = None,
    ) -> None:
        super().__init__(searcher, (len(gallery), gallery.shape[1]), layout, visited, rescored)
        self.gallery = gallery

    @classmethod
    def compressed(cls, gallery: np.ndarray, k: int, layout: Layout = LAYOUTS[0]) -> Self:
        """Sort a gallery into leaves and compress it. ScaNN holds a copy of the vectors until that is done.

        Args:
            gallery: (N, dim) float32 unit rows.
            k: Neighbors that will be asked for.
            layout: How to lay it out.
        """
        with approximate.errors_of("ScaNN"):
            searcher = approximate.sorting(scann_library.searchers(), gallery, k, layout).build()
        return cls(searcher, gallery, layout)

    @property
    def bytes_an_item(self) -> float:
        """Return what an item takes in memory: its codes, the number of its leaf, its share of the leaves' centers."""
        codes = 4 + -(-self.dim // self.layout.dims) / 2
        return (2 if self.layout.soar else 1) * codes + 4 * self.dim * self.leaves / self.size

    def search(
        self,
        queries: np.ndarray,
        k: int,
        own: np.ndarray | None = None,
        progress: bool | None = False,
        wider: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (Q, k) and cosines (Q, k), best first; as `Tree.search`."""
        visited, rescored = self._settings(wider)
        count = min(max(k + (own is not None), rescored), self.size)

        def scored(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked = np.ascontiguousarray(asked)
            with approximate.errors_of("ScaNN"):
                found, near = self.searcher.search_batched_parallel(asked, count, count, visited)
            listed = np.where(np.isfinite(near), np.asarray(found, np.int64), -1)
            return listed, rescoring.cosines(self.gallery, asked, listed)

        block = rescoring.step(self.dim, count)
        return rescoring.best(scored, queries, k, own, block, "Searching (ScaNN)", progress)

    def settings(self) -> dict[str, object]:
        """Return what was chosen, for reports."""
        return {**super().settings(), "bytes an item": self.bytes_an_item}


def load(
    folder: pathlib.Path, vectors: pathlib.Path, gallery: np.ndarray, facts: Mapping[str, Any]
) -> approximate.Calibrated | None:
    """Return what `save` wrote; None where ScaNN is missing or of another version than the one that wrote it.

    Raises:
        KeyError, TypeError, ValueError: If `facts` do not fit.
    """
    found = saved_tree.read(folder, facts, {})
    if found is None:
        return None
    searcher, layout, tuning = found
    return approximate.Calibrated.of(Product(searcher, gallery, layout, *tuning), facts)

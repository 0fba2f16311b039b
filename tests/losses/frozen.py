"""Values and gradients that other libraries gave for the losses of the table, out of `tests/data`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.losses.table import Row
from tf_detreg import losses

DATA = Path(__file__).parents[1] / "data"
ADDONS = np.load(DATA / "tfa_pairs.npz")
PML_PAIRS = np.load(DATA / "pml_pairs.npz")
PML_PROXIES = np.load(DATA / "pml_proxy_golden.npz")


@dataclass(frozen=True)
class Frozen:
    """A batch, and what the other library says about it.

    Args:
        labels: `(B,)`.
        embeddings: `(B, dim)`.
        value: the loss.
        gradient: to the embeddings, where it was recorded.
        tolerance: of the library's precision.
        proxies: of a proxy loss, `(C·m, dim)`.
        proxy_gradient: to the proxies.
        references: other vectors that the embeddings are compared with, in place of the batch.
    """

    labels: np.ndarray
    embeddings: np.ndarray
    value: float
    gradient: np.ndarray | None
    tolerance: float
    proxies: np.ndarray | None = None
    proxy_gradient: np.ndarray | None = None
    references: np.ndarray | None = None


def frozen_values(row: Row) -> Iterator[Frozen]:
    """Every recorded case of a row."""
    library, key = row.frozen.split("/", 1)
    if library == "tfa":
        yield from _addons(key)
    elif issubclass(row.loss, losses.ProxyLoss):
        yield from _pml_proxies(key)
    else:
        tolerance = 1e-6 if key == "margin" else 1e-9  # a β of 1.2 is a float32 there
        labels, embeddings = PML_PAIRS["labels"], PML_PAIRS["embeddings"]
        yield Frozen(
            labels, embeddings, float(PML_PAIRS[f"{key}/loss"]), PML_PAIRS[f"{key}/gradient"], tolerance=tolerance
        )


def _pml_proxies(key: str) -> Iterator[Frozen]:
    for batch in ("random", "trained", "one_class"):
        value, dx, proxies, dp = (PML_PROXIES[f"{batch}/{key}/{part}"] for part in ("value", "dx", "proxies", "dp"))
        labels, embeddings = PML_PROXIES[f"{batch}/labels"], PML_PROXIES[f"{batch}/embeddings"]
        yield Frozen(labels, embeddings, float(value), dx, 1e-6, proxies, dp)


def _addons(key: str) -> Iterator[Frozen]:
    """Two scenes, in float32."""
    for scene in "ac":
        value = float(ADDONS[f"{scene}/{key}/loss"])
        if key.startswith("Npairs"):
            anchors, positives = ADDONS[f"{scene}/Npairs/anchor"], ADDONS[f"{scene}/Npairs/positive"]
            labels = ADDONS[f"{scene}/{key}/y"].astype(np.int32)
            yield Frozen(labels, anchors, value, None, 1e-5, references=positives)
        else:
            labels, embeddings = ADDONS[f"{scene}/y"], ADDONS[f"{scene}/emb"]
            yield Frozen(labels, embeddings, value, ADDONS[f"{scene}/{key}/grad"], 1e-5)

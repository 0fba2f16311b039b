"""How much an embedder stretches: what a determinant penalty is said to control, measured.

For a map `f` with Jacobian `J(x)`:

    spectral norm    max over v of ‖J·v‖ / ‖v‖      power iteration with `J` and `Jᵀ`, all samples at once
    Frobenius norm   sqrt(E_v ‖J·v‖²), v_i = ±1      Hutchinson
    log-determinant  of the flow, from its log-scales
    secant ratio     ‖f(a) − f(b)‖ / ‖a − b‖         on pairs: within a class, between classes, interpolated, unseen

The Lipschitz constant is the largest spectral norm over all points; what is measured at samples bounds it from below.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tf_detreg import extras
from tf_detreg._compat import last_layer
from tf_detreg.analysis.jacobians import (
    frobenius_norm,
    log_determinant,
    singular_values,
    spectral_norm,
    spectrum_of,
)
from tf_detreg.analysis.memory import MEMORY, batched, forward_map
from tf_detreg.analysis.samples import take
from tf_detreg.analysis.secants import POPULATIONS, secant_ratios, secants_of_populations
from tf_detreg.analysis.smoothness import smoothness_table
from tf_detreg.progress import ticker

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet

__all__ = [
    "POPULATIONS",
    "LipschitzReport",
    "PartReport",
    "frobenius_norm",
    "log_determinant",
    "measure",
    "secant_ratios",
    "singular_values",
    "spectral_norm",
]


@dataclasses.dataclass(frozen=True)
class PartReport:
    """One map's numbers, one entry per sample.

    Args:
        spectral: (n,) largest singular values.
        frobenius: (n,) Frobenius norms.
        log_det: (n,) of the flow; None for maps without a determinant.
        spectrum: (m, r) all singular values, largest first; None where the Jacobian is too large.
        secants: Population → (p,) ratios.
    """

    spectral: np.ndarray
    frobenius: np.ndarray
    log_det: np.ndarray | None
    spectrum: np.ndarray | None
    secants: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class LipschitzReport:
    """What `measure` found, by part: `"head"`, `"backbone"` and `"embedder"`, as far as they could be measured."""

    parts: dict[str, PartReport]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the median and maximum of each number, by part, as plain dictionaries."""
        return {name: _summary(part) for name, part in self.parts.items()}

    def summary(self) -> str:
        """Return a sentence: how far each part stretches at most and at the median."""
        row = "spectral norm"
        texts = (
            f"{name} {cell['median']:.4g} (at most {cell['max']:.4g})"
            for name, part in self.to_dict().items()
            if (cell := part.get(row)) is not None
        )
        return f"Spectral norm, median over samples: {', '.join(texts) or 'not measured'}."

    def to_json(self) -> str:
        """Return JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), indent=2)

    def to_markdown(self) -> str:
        """Return a table: one row per number, `median (maximum)` per part."""
        return smoothness_table(self.to_dict()) + "\n"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a figure: singular values, and the secant ratios by population, a column per part."""
        with extras.needed("A plot"):
            from matplotlib.figure import Figure

        figure = Figure(figsize=(4.5 * len(self.parts), 7), layout="constrained")
        axes = figure.subplots(2, len(self.parts), squeeze=False)
        for (top, bottom), (name, part) in zip(axes.T, self.parts.items(), strict=True):
            top.set_title(name)
            if part.spectrum is None:
                top.hist(part.spectral, bins=20)
                top.set(xlabel="spectral norm", ylabel="samples")
            else:
                above_rounding = np.where(part.spectrum > 1e-7 * part.spectrum.max(), part.spectrum, np.nan)
                top.plot(np.arange(1, part.spectrum.shape[1] + 1), above_rounding.T, color="tab:blue", alpha=0.4)
                top.set(xlabel="rank", ylabel="singular value", yscale="log")
            bottom.boxplot(list(part.secants.values()), tick_labels=[p.replace(" ", "\n") for p in part.secants])
            bottom.set(ylabel="‖f(a) − f(b)‖ / ‖a − b‖")
        figure.savefig(path, dpi=120)


def measure(
    embedder: keras.Model,
    data: "ImageSet | ArrayLike",
    labels: ArrayLike | None = None,
    *,
    unseen: "ImageSet | ArrayLike | None" = None,
    unseen_labels: ArrayLike | None = None,
    samples: int = 64,
    pairs: int = 512,
    iterations: int = 20,
    probes: int = 16,
    epsilon: float = 0.4,
    spectrum_limit: int = 4096,
    seed: int = 0,
    progress: bool | None = None,
    memory: float = MEMORY,
) -> LipschitzReport:
    """Measure head, backbone and whole embedder on real samples.

    The head is measured as its flow, `z → y` before normalization; the backbone as images → features; the embedder as
    images → unit vectors. A head is also accepted alone: `data` are then features.

    A point costs `iterations` × 3 + `probes` × 2 passes of the backbone and as many of the embedder, where a pass
    forward is the unit: 92 each by default. Memory is bounded by `memory`, whatever the size of the images.

    Args:
        embedder: A model that ends in a head, a `MetricModel`, or a built head.
        data: A `datasets.ImageSet`, or images `(N, H, W, 3)`, or features `(N, F)`.
        labels: `(N,)`; taken from an ImageSet by itself.
        unseen: As `data`, of classes that training did not see. Default: that population is left out.
        unseen_labels: Their labels.
        samples: Points at which Jacobians are measured. Default 64.
        pairs: Pairs per population. Default 512.
        iterations: Of the power iteration. Default 20.
        probes: Random directions per point for the Frobenius norm. Default 16.
        epsilon: Interpolated pairs are `(a, a + ε(b − a))` within a class. Default 0.4.
        spectrum_limit: The full spectrum is computed of up to 8 points where inputs × outputs stay below the square of
            this. Default 4096.
        seed: Of all draws.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.
        memory: Gigabytes that a step of derivatives may take; the images take a quarter of it at most, twice with
            `unseen`. Fewer of large ones are then read, and numbers whose derivatives at one point need more are left
            out, with a note in the log. Default 0.6.

    Returns:
        A `LipschitzReport`.

    Raises:
        ValueError: If labels are missing or do not fit, or there are no two classes or no class with two samples.

    Example:
        >>> from tf_detreg import heads
        >>> head = heads.RealNVP(4, depth=2, hidden=8)
        >>> x = np.random.default_rng(0).standard_normal((12, 6)).astype("float32")
        >>> _ = head(x)
        >>> report = measure(head, x, np.arange(12) % 3)
        >>> report.parts["head"].spectral.shape
        (12,)
    """
    embedder = getattr(embedder, "embedder", embedder)
    random = np.random.default_rng(seed)
    seen = take(data, labels, random, 4 * samples, "labels", progress, memory)
    new = None
    if unseen is not None:
        new = take(unseen, unseen_labels, random, 4 * samples, "unseen_labels", progress, memory)
    parts = {}
    for name, (prepare, function, log_det) in _maps(embedder).items():
        points = [(prepare(inputs, progress, memory), classes) for inputs, classes in filter(None, (seen, new))]
        x = points[0][0][:samples]
        with ticker(f"{name}: Jacobians", len(x) * (iterations + probes), progress) as tick:
            spectral = spectral_norm(function, x, iterations, seed, tick, memory)
            frobenius = frobenius_norm(function, x, probes, seed, tick, memory)
        forward = forward_map(function, x, memory)
        parts[name] = PartReport(
            spectral=spectral,
            frobenius=frobenius,
            log_det=None if log_det is None else log_det(x),
            spectrum=spectrum_of(function, x[:8], forward.width, spectrum_limit, memory, name, progress),
            secants=secants_of_populations(forward, points, pairs, epsilon, random, f"{name}: pairs", progress),
        )
    return LipschitzReport(parts)


def _maps(embedder: Any) -> dict[str, Any]:
    """Return part → (how its inputs come from the data, the map, its log-determinant or None)."""
    if not isinstance(embedder, keras.Model):
        head = getattr(embedder, "main", embedder)
        return {
            "head": (lambda x, *_: head.project(x), lambda z: head.flow(z)[0], functools.partial(log_determinant, head))
        }
    layer, features = last_layer(embedder)
    head = getattr(layer, "main", layer)
    backbone = keras.Model(embedder.inputs[0], features)

    def run(x: tf.Tensor) -> tf.Tensor:
        return backbone(x, training=False)

    return {
        "head": (
            lambda x, progress, memory: head.project(_values(run, x, progress, memory)),
            lambda z: head.flow(z)[0],
            functools.partial(log_determinant, head),
        ),
        "backbone": (_as_they_are, run, None),
        "embedder": (_as_they_are, lambda x: embedder(x, training=False), None),
    }


def _as_they_are(x: tf.Tensor, *_: Any) -> tf.Tensor:
    return x


def _values(function: Callable[..., Any], x: tf.Tensor, progress: bool | None, memory: float) -> tf.Tensor:
    with ticker("Features", len(x), progress) as tick:
        return batched(forward_map(function, x, memory), x, tick)


def _summary(part: PartReport) -> dict[str, Any]:
    rows = {"spectral norm": part.spectral, "Frobenius norm": part.frobenius}
    if part.log_det is not None:
        rows["log det"] = part.log_det
        if part.spectrum is not None:
            # Only of an invertible map: a backbone's smallest singular values are rounding.
            rows["condition number"] = part.spectrum[:, 0] / part.spectrum[:, -1]
    rows |= {f"secant, {name}": ratios for name, ratios in part.secants.items()}
    return {
        name: {"median": float(np.median(values)), "max": float(np.max(values)), "samples": len(values)}
        for name, values in rows.items()
        if len(values)
    }

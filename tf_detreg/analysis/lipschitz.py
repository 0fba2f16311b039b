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
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tf_detreg import checks, extras
from tf_detreg._compat import last_layer
from tf_detreg.analysis.memory import MEMORY, BoundedMap
from tf_detreg.analysis.neighbors import _height_width
from tf_detreg.progress import ticker

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


_LOG = logging.getLogger(__name__)

POPULATIONS = ("within class", "between classes", "interpolated", "unseen classes")


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
        summary = self.to_dict()
        rows = list(dict.fromkeys(row for part in summary.values() for row in part))
        lines = ["| median (max) | " + " | ".join(summary) + " |", "|---" * (len(summary) + 1) + "|"]
        for row in rows:
            cells = [part.get(row) for part in summary.values()]
            texts = ["–" if cell is None else f"{cell['median']:.4g} ({cell['max']:.4g})" for cell in cells]
            lines.append(f"| {row} | " + " | ".join(texts) + " |")
        return "\n".join(lines) + "\n"

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

    The head is measured as its flow, `z → y` before normalisation; the backbone as images → features; the embedder as
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
            out, with a note in the log. Default 0.75.

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
    seen = _take(data, labels, random, 4 * samples, "labels", progress, memory)
    new = None
    if unseen is not None:
        new = _take(unseen, unseen_labels, random, 4 * samples, "unseen_labels", progress, memory)
    parts = {}
    for name, (prepare, function, log_det) in _maps(embedder).items():
        points = [(prepare(inputs, progress, memory), classes) for inputs, classes in filter(None, (seen, new))]
        x = points[0][0][:samples]
        with ticker(f"{name}: Jacobians", len(x) * (iterations + probes), progress) as tick:
            spectral = spectral_norm(function, x, iterations, seed, tick, memory)
            frobenius = frobenius_norm(function, x, probes, seed, tick, memory)
        forward = _forward(function, x, memory)
        parts[name] = PartReport(
            spectral=spectral,
            frobenius=frobenius,
            log_det=None if log_det is None else log_det(x),
            spectrum=_spectrum(function, x[:8], forward.width, spectrum_limit, memory, name, progress),
            secants=_secants(forward, points, pairs, epsilon, random, f"{name}: pairs", progress),
        )
    return LipschitzReport(parts)


def spectral_norm(
    function: Callable[..., Any],
    x: tf.Tensor,
    iterations: int = 20,
    seed: int = 0,
    tick: Callable[[int], None] = lambda rows: None,
    memory: float = MEMORY,
) -> np.ndarray:
    """Return the largest singular value of the Jacobian at each row of `x`: power iteration on `Jᵀ·J`.

    Args:
        function: The map, of `(B, …)` to `(B, …)` for any B.
        x: `(n, …)` the points.
        iterations: Default 20.
        seed: Of the first directions. Default 0.
        tick: Called with the number of rows after each iteration on them.
        memory: Gigabytes that a step may take, by which rows run side by side. Default 0.75.

    Returns:
        `(n,)`; `(0,)` if the memory is too small for one row.
    """

    def step(x: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
                y = _in_full(function, x)
            stretched = accumulator.jvp(y, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            pulled = tape.gradient(y, x, output_gradients=tf.stop_gradient(stretched))
        return _unit(pulled), tf.norm(_flat(stretched), axis=-1)

    bounded = _derivative(step, x, x, memory=memory)
    if bounded is None:
        return np.zeros(0, x.dtype.as_numpy_dtype)
    # All directions at once, so that the numbers do not depend on how many rows a step takes.
    directions = tf.random.stateless_normal(tf.shape(x), (seed, 1), dtype=x.dtype)
    found = []
    for rows, v in bounded.parts(x, directions):
        v = _unit(v)
        for _ in range(iterations):
            v, norms = bounded(rows, v)
            tick(len(rows))
        found.append(norms.numpy())
    return np.concatenate(found)


def frobenius_norm(
    function: Callable[..., Any],
    x: tf.Tensor,
    probes: int = 16,
    seed: int = 0,
    tick: Callable[[int], None] = lambda rows: None,
    memory: float = MEMORY,
) -> np.ndarray:
    """Return `sqrt(mean ‖J·v‖²)` over `probes` directions of random signs, at each row of `x`.

    Signs, because they are exact where the columns of `J` are orthogonal, as they nearly are for a young flow. The
    other arguments are those of `spectral_norm`; `tick` is called after each direction.
    """

    def squared(x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            y = _in_full(function, x)
        stretch = accumulator.jvp(y, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.reduce_sum(tf.square(_flat(stretch)), axis=-1)

    bounded = _derivative(squared, x, x, memory=memory)
    if bounded is None:
        return np.zeros(0, x.dtype.as_numpy_dtype)
    total = np.zeros(len(x), np.float64)
    for probe in range(probes):
        signs = tf.sign(tf.random.stateless_uniform(tf.shape(x), (seed, 2 + probe), -1.0, 1.0, x.dtype))
        first = 0
        for rows, v in bounded.parts(x, signs):
            total[first : first + len(rows)] += bounded(rows, v).numpy()
            first += len(rows)
            tick(len(rows))
    return np.sqrt(total / probes).astype(x.dtype.as_numpy_dtype)


def singular_values(
    function: Callable[..., Any], x: tf.Tensor, memory: float = MEMORY, tick: Callable[[int], None] = lambda rows: None
) -> np.ndarray:
    """Return all singular values of the Jacobian at each row of `x`, largest first: one backward pass per output.

    Args:
        function: The map, of `(B, …)` to `(B, outputs)` for any B.
        x: `(n, …)` the points.
        memory: Gigabytes that a step may take, without the Jacobian of one row itself. Default 0.75.
        tick: Called with the number of rows of Jacobians after each step.

    Returns:
        `(n, r)`; `(0, 0)` if the memory is too small for one row.
    """

    def gradient(x: tf.Tensor, directions: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = _in_full(function, x)
        return _flat(tape.gradient(y, x, output_gradients=directions))

    width = _forward(function, x, memory).width
    bounded = _derivative(gradient, x, tf.zeros((1, width), x.dtype), memory=memory)
    if bounded is None:
        return np.zeros((0, 0), x.dtype.as_numpy_dtype)
    found = []
    for n in range(len(x)):
        rows = []
        for directions in bounded.parts(tf.eye(width, dtype=x.dtype)):
            rows.append(bounded(tf.repeat(x[n : n + 1], len(directions), axis=0), directions).numpy())
            tick(len(directions))
        found.append(np.linalg.svd(np.concatenate(rows), compute_uv=False))
    return np.stack(found)


def _derivative(function: Callable[..., Any], *examples: tf.Tensor, memory: float) -> BoundedMap | None:
    """Return a pass of derivatives in bounded memory; None, with a note in the log, if one row needs more."""
    bounded = BoundedMap(function, *examples, memory=memory)
    if bounded.fits:
        return bounded
    _LOG.warning(
        "The derivatives at one point need %.1f GB, more than `memory`=%g: their numbers are left out. Allow more, "
        "or measure a model of smaller images.",
        bounded.needs,
        memory,
    )
    return None


def log_determinant(head: Any, z: tf.Tensor) -> np.ndarray | None:
    """Return `log|det J|` of a head's flow at each row of `z`, from its log-scales; None if it has none."""
    scales = head.flow(z, training=False)[1]
    return sum(tf.reduce_sum(s, axis=-1) + tf.zeros(len(z), z.dtype) for s in scales).numpy() if scales else None


def secant_ratios(function: Callable[..., Any], a: tf.Tensor, b: tf.Tensor, memory: float = MEMORY) -> np.ndarray:
    """Return `‖f(a) − f(b)‖ / ‖a − b‖`, row by row; rows where the two points are the same are left out."""
    forward = _forward(function, a, memory)
    return _ratios(_distances(_batched(forward, a), _batched(forward, b)), _distances(a, b))


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


def _take(
    data: Any,
    labels: ArrayLike | None,
    random: np.random.Generator,
    count: int,
    name: str,
    progress: bool | None,
    memory: float = MEMORY,
) -> tuple[tf.Tensor, np.ndarray]:
    """Return some inputs as floats and their labels, in a quarter of the memory, so that pairs of one class exist."""
    if labels is None and not hasattr(data, "labels"):
        raise checks.invalid(name, "be given beside an array of images or features", "None")
    labels = np.asarray(data.labels if labels is None else labels).reshape(-1)
    if len(labels) != len(data):
        raise ValueError(f"`{name}` must be one per sample; received {len(labels)} for {len(data)} samples.")
    classes = random.permutation(np.unique(labels))
    counts = np.array([np.sum(labels == c) for c in classes])
    if len(classes) < 2 or counts.max() < 2:
        raise ValueError(
            f"`{name}` must hold two classes or more, one of them with two samples; received {len(classes)}."
        )
    chosen = classes[: max(2, int(np.searchsorted(np.cumsum(counts), count)) + 1)]
    index = random.permutation(np.flatnonzero(np.isin(labels, chosen)))
    row = 4 * int(np.prod((*_height_width(data), 3) if hasattr(data, "indexed") else np.shape(data)[1:]))
    most = min(2 * count, max(4, int(memory * 2**28 / row)))
    if len(index) > most:
        index = index[np.sort(_rows_of_each_class(labels[index], most))]
    if hasattr(data, "indexed"):
        index = np.sort(index)
        # By index: files that cannot be read are left out. Few at a time: batches are read ahead.
        batches = []
        with ticker("Reading images", len(index), progress) as tick:
            for items, rows in data.subset(index).indexed(int(np.clip(2**24 // row, 1, 128))):
                batches.append((items.numpy(), rows.numpy()))
                tick(len(rows))
        items, rows = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return tf.constant(items, tf.float32), labels[index[rows]]
    return tf.constant(np.asarray(data)[index], tf.float32), labels[index]


def _secants(
    forward: BoundedMap,
    points: Sequence[tuple[tf.Tensor, np.ndarray]],
    pairs: int,
    epsilon: float,
    random: np.random.Generator,
    title: str,
    progress: bool | None,
) -> dict[str, np.ndarray]:
    """Return the ratios by population. Every point is mapped once, however many pairs it is in."""
    x, labels = points[0]
    within, between = _pairs(labels, pairs, random)
    with ticker(title, sum(len(inputs) for inputs, _ in points) + len(within[0]), progress) as tick:
        y = _batched(forward, x, tick)
        found = {"within class": _secants_of(x, y, *within), "between classes": _secants_of(x, y, *between)}
        interpolated = []
        for a, b in _steps(within, x):
            start, end, value = (tf.gather(part, rows) for part, rows in ((x, a), (x, b), (y, a)))
            point = start + epsilon * (end - start)
            interpolated.append(_ratios(_distances(value, _batched(forward, point, tick)), _distances(start, point)))
        found["interpolated"] = np.concatenate(interpolated)
        if len(points) > 1:
            x, labels = points[1]
            rows = np.concatenate(_pairs(labels, pairs // 2 or 1, random), axis=1)
            found["unseen classes"] = _secants_of(x, _batched(forward, x, tick), *rows)
    return {name: found[name] for name in POPULATIONS if name in found}


def _secants_of(x: tf.Tensor, y: tf.Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the ratios of pairs, given by row numbers, of points `x` with values `y`."""
    parts = [
        _ratios(*(_distances(tf.gather(part, a), tf.gather(part, b)) for part in (y, x)))
        for a, b in _steps((first, second), x)
    ]
    return np.concatenate(parts)


def _steps(pairs: Sequence[np.ndarray], x: tf.Tensor, held: int = 2**25) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return some pairs of row numbers at a time: copies of the points that belong to them take 32 MB."""
    size = max(1, held // (x.dtype.size * int(np.prod(x.shape[1:]))))
    first, second = pairs
    return ((first[i : i + size], second[i : i + size]) for i in range(0, max(1, len(first)), size))


def _ratios(rise: np.ndarray, run: np.ndarray) -> np.ndarray:
    result: np.ndarray = rise[run > 0] / run[run > 0]
    return result


def _distances(a: tf.Tensor, b: tf.Tensor) -> np.ndarray:
    result: np.ndarray = tf.norm(_flat(a - b), axis=-1).numpy()
    return result


def _pairs(
    labels: np.ndarray, count: int, random: np.random.Generator, most: int = 4096
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return row numbers of up to `count` pairs within a class, and of as many between classes."""
    rows = _rows_of_each_class(labels, most) if len(labels) > most else np.arange(len(labels))
    first, second = np.triu_indices(len(rows), 1)
    same = labels[rows][first] == labels[rows][second]
    chosen = [random.permutation(np.flatnonzero(mask))[:count] for mask in (same, ~same)]
    return [(rows[first[index]], rows[second[index]]) for index in chosen]


def _rows_of_each_class(labels: np.ndarray, most: int) -> np.ndarray:
    """Return `most` row numbers, class by class in turn and two at a time: all pairs would fill the memory."""
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    number = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return order[np.lexsort((ranked, number // 2))[:most]]


def _spectrum(
    function: Callable[..., tf.Tensor],
    x: tf.Tensor,
    width: int | None,
    limit: int,
    memory: float,
    name: str,
    progress: bool | None,
) -> np.ndarray | None:
    """Return all singular values at a few points; None if the Jacobians are too large."""
    if width is None or int(np.prod(x.shape[1:])) * width > limit**2:
        return None
    with ticker(f"{name}: singular values", len(x) * width, progress) as tick:
        found = singular_values(function, x, memory, tick)
    return found if len(found) else None


def _forward(function: Callable[..., Any], x: tf.Tensor, memory: float) -> BoundedMap:
    """Return the map alone, which runs on one row at least, whatever the memory: what the model itself needs."""
    return BoundedMap(lambda x: _in_full(function, x), x, memory=memory)


def _values(function: Callable[..., Any], x: tf.Tensor, progress: bool | None, memory: float) -> tf.Tensor:
    with ticker("Features", len(x), progress) as tick:
        return _batched(_forward(function, x, memory), x, tick)


def _batched(forward: BoundedMap, x: tf.Tensor, tick: Callable[[int], None] = lambda rows: None) -> tf.Tensor:
    found = []
    for rows in forward.parts(x):
        found.append(forward(rows))
        tick(len(rows))
    return tf.concat(found, axis=0)


def _in_full(function: Callable[..., tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Return the map's values in the precision of its inputs, also where layers compute in half."""
    return tf.cast(function(x), x.dtype)


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, (tf.shape(x)[0], -1))


def _unit(x: tf.Tensor) -> tf.Tensor:
    flat = _flat(x)
    # By its largest entry first: the square of a small Jacobian's product would underflow.
    largest = tf.reduce_max(tf.abs(flat), axis=-1, keepdims=True)
    return tf.reshape(tf.math.l2_normalize(tf.math.divide_no_nan(flat, largest), axis=-1), tf.shape(x))


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

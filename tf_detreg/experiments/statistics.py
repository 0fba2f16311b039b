"""Means with intervals, and differences of pairs that share split and seed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_detreg import checks, extras


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with two 95 % intervals: Student's t over all pairs, and a bootstrap over splits and seeds within them.

    Attributes:
        mean: Of the values.
        deviation: Their sample standard deviation.
        count: How many there are.
        t: Lower and upper end by Student's t, which takes the values as independent.
        bootstrap: Lower and upper end by resampling splits, then seeds within each, which does not.
    """

    mean: float
    deviation: float
    count: int
    t: tuple[float, float]
    bootstrap: tuple[float, float]

    @property
    def above_zero(self) -> bool:
        """Return whether both intervals lie above 0."""
        return bool(min(self.t[0], self.bootstrap[0]) > 0)


Key = tuple[int, Any]


def interval(values: Mapping[Key, float], draws: int = 4000, seed: int = 0) -> Interval:
    """Return mean and intervals of values by (split, seed).

    Args:
        values: At least one; with a single one the intervals are infinite.
        draws: Bootstrap samples. Default 4000.
        seed: Of the bootstrap.

    Example:
    >>> found = interval({(0, 0): 1.0, (0, 1): 1.2, (1, 0): 0.8, (1, 1): 1.0})
    >>> round(found.mean, 6), found.count, found.above_zero
    (1.0, 4, True)
    """
    with extras.needed("An interval of a study"):
        from scipy import stats

    if not values:
        raise checks.invalid("values", "hold a pair that shares a split and a seed", "none")
    x = np.array(list(values.values()), float)
    if len(x) == 1:
        infinite = (-float("inf"), float("inf"))
        return Interval(float(x[0]), float("nan"), 1, infinite, infinite)
    deviation = float(x.std(ddof=1))
    half = float(stats.t.ppf(0.975, len(x) - 1)) * deviation / np.sqrt(len(x))
    mean = float(x.mean())
    low, high = np.quantile(_bootstrap(values, draws, seed), [0.025, 0.975])
    return Interval(mean, deviation, len(x), (mean - half, mean + half), (float(low), float(high)))


def paired(values: Mapping[Key, float], baseline: Mapping[Key, float]) -> Interval:
    """Return the interval of `value − baseline` over the (split, seed) pairs that both have."""
    return interval({key: values[key] - baseline[key] for key in values if key in baseline})


def _bootstrap(values: Mapping[Key, float], draws: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    by_split: dict[int, list[float]] = {}
    for (split, _), value in sorted(values.items()):
        by_split.setdefault(split, []).append(value)
    groups = [np.array(group) for group in by_split.values()]
    # For every draw and every group, the mean of a resample of that group; then a resample of the groups' means.
    means = np.stack([rng.choice(g, (draws, len(groups), len(g))).mean(2) for g in groups], axis=2)
    picked = rng.integers(len(groups), size=(draws, len(groups)))
    result: np.ndarray = np.take_along_axis(means, picked[:, :, None], axis=2)[:, :, 0].mean(1)
    return result

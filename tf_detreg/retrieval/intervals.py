"""Confidence intervals: how far could a number be off, had other classes, or other queries, been drawn?"""

import math
import statistics

import numpy as np

_CONFIDENCE = 0.95
_CELLS = 4_000_000


def over_classes(
    values: np.ndarray, classes: np.ndarray, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the bootstrap interval (95 %) of a mean over queries, by drawing classes with replacement.

    Queries of one class resemble each other, so an interval that draws queries is too narrow; the claim is about unseen
    classes, so classes are what is drawn.

    Args:
        values: (Q,) one value a query; NaN is left out.
        classes: (Q,) class of each query, integers from 0.
        resamples: Default 1000.
        seed: Default 0. Of the draw.

    Returns:
        (low, high), or None when fewer than two classes have a value.

    Example:
        >>> over_classes(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
        (0.0, 1.0)
    """
    known = ~np.isnan(values)
    counts = np.bincount(classes[known])
    sums = np.bincount(classes[known], weights=values[known])
    present = counts > 0
    counts, sums = counts[present], sums[present]
    if len(counts) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = []
    step = max(1, _CELLS // len(counts))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=size)
        means.append((draws @ sums) / (draws @ counts))
    return central(np.concatenate(means))


def central(values: np.ndarray) -> tuple[float, float]:
    """Return the range that holds the central 95 % of some values; NaN is left out.

    Example:
        >>> [round(bound, 6) for bound in central(np.arange(101.0))]
        [2.5, 97.5]
    """
    low, high = np.nanquantile(values, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def of_share(hits: float, trials: int) -> tuple[float, float]:
    """Return the Wilson interval (95 %) of a share; stays inside 0..1, and is not empty at 0 or 1.

    Args:
        hits: How often it happened.
        trials: Out of how many independent trials.

    Example:
        >>> low, high = of_share(99, 100)
        >>> round(low, 3), round(high, 3)
        (0.946, 0.998)
    """
    z = statistics.NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    share, spread = float(hits) / trials, z * z / trials
    center = share + spread / 2
    half = math.sqrt(spread * share * (1 - share) + spread * spread / 4)
    return (center - half) / (1 + spread), min(1.0, (center + half) / (1 + spread))

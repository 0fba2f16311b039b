"""Intervals and paired differences against their textbook values."""

import math

import numpy as np
import pytest

from tf_detreg.experiments.statistics import interval, paired


def test_t_interval_equals_scipys():
    from scipy import stats

    x = np.random.default_rng(0).normal(3.0, 2.0, 12)
    found = interval({(i // 4, i % 4): float(v) for i, v in enumerate(x)})
    low, high = stats.t.interval(0.95, 11, loc=x.mean(), scale=stats.sem(x))
    assert found.mean == pytest.approx(x.mean())
    assert found.deviation == pytest.approx(x.std(ddof=1))
    assert found.t == pytest.approx((low, high))


def test_bootstrap_sees_the_spread_between_splits_that_t_does_not():
    # Seeds agree, splits do not: 4 × 4 values are worth little more than 4.
    values = {(split, seed): split + 0.01 * seed for split in range(4) for seed in range(4)}
    found = interval(values)
    width = lambda ends: ends[1] - ends[0]  # noqa: E731
    assert width(found.bootstrap) > 1.4 * width(found.t)


def test_bootstrap_of_equal_splits_is_near_t():
    rng = np.random.default_rng(1)
    found = interval({(split, seed): float(rng.normal()) for split in range(20) for seed in range(10)})
    assert found.bootstrap == pytest.approx(found.t, abs=0.06)


def test_pairs_share_split_and_seed():
    a = {(0, 0): 5.0, (0, 1): 7.0, (1, 0): 9.0}
    b = {(0, 0): 4.0, (0, 1): 6.0, (2, 0): 0.0}
    found = paired(a, b)
    assert (found.mean, found.count, found.deviation) == (1.0, 2, 0.0)
    assert found.above_zero and not paired(b, a).above_zero


def test_one_value_decides_nothing():
    found = interval({(0, 0): 2.0})
    assert found.t == (-math.inf, math.inf) and not found.above_zero


def test_no_common_pair_is_an_error():
    with pytest.raises(ValueError, match="pair"):
        paired({(0, 0): 1.0}, {(1, 0): 1.0})

"""Pairs that are drawn from a set too large to compare all of it."""

import numpy as np
import pytest

from tf_detreg.retrieval.pairs import _impostor


@pytest.mark.parametrize("unused", [0, 2])
def test_pairs_of_two_classes_are_drawn_in_proportion(unused):
    """A class of n among N items is at the first end of n·(N − n) of the ordered pairs."""
    classes = np.random.default_rng(5).permutation(np.repeat([0, 1, 2, 3], [5, 1, 10, 3])) + unused
    expected = 100 * np.array([70, 18, 90, 48]) / 226
    met = set()
    for seed in range(40):
        (one, other), of = _impostor(classes, 100, np.random.default_rng(seed))
        assert of == 113 and len(one) == len(other) == 100
        assert (classes[one] != classes[other]).all()
        assert np.abs(np.bincount(classes[one] - unused, minlength=4) - expected).max() <= 1
        met |= set(zip(one.tolist(), other.tolist(), strict=True))
    assert len(met) == 226


def test_few_pairs_are_all_compared():
    classes = np.array([0, 1, 0, 2])
    (one, other), of = _impostor(classes, 5, np.random.default_rng(0))
    assert of == 5
    assert set(zip(one.tolist(), other.tolist(), strict=True)) == {(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)}

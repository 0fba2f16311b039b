"""The expected calibration error, counted by hand."""

import numpy as np
import pytest

from tf_detreg.retrieval import calibration

STATED = np.array([0.2] * 10 + [0.8] * 10)
KNOTS = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))


def test_too_low_and_too_high_probabilities_do_not_make_up_for_each_other(monkeypatch):
    monkeypatch.setattr(calibration, "_BINS", 2)
    weights = np.array([1.0] * 10 + [1.1] * 10)
    right = np.array([1, 0] * 10)
    order = np.random.default_rng(0).permutation(20)
    error, bins = calibration._reliability(STATED[order], right[order], weights[order], KNOTS)
    assert error == pytest.approx(0.3)
    assert np.array(bins) == pytest.approx(np.array([[0.2, 0.5, 10 / 21], [0.8, 0.5, 11 / 21]]))


def test_weights_count_in_the_error_and_none_makes_no_bin(monkeypatch):
    monkeypatch.setattr(calibration, "_BINS", 2)
    right = np.array([1] * 5 + [0] * 5 + [1] * 10)
    weights = np.array([3.0] * 5 + [1.0] * 5 + [2.2] * 10)
    error, bins = calibration._reliability(STATED, right, weights, KNOTS)
    assert np.array(bins) == pytest.approx(np.array([[0.2, 0.75, 20 / 42], [0.8, 1.0, 22 / 42]]))
    assert error == pytest.approx(0.55 * 20 / 42 + 0.2 * 22 / 42)
    alone = calibration._reliability(STATED, right, weights * (STATED > 0.5), KNOTS)
    assert alone[0] == pytest.approx(0.2) and len(alone[1]) <= 2


def test_the_curve_says_what_a_score_means():
    """The knots halve each score."""
    error, _ = calibration._reliability(STATED, np.zeros(20), np.ones(20), (np.array([0.0, 1.0]), np.array([0.0, 0.5])))
    assert error == pytest.approx(0.25)

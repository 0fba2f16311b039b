"""How far a tree is searched: the choice by itself, without ScaNN."""

import types

import numpy as np
import pytest

from tf_detreg.retrieval import approximate
from tf_detreg.retrieval.approximate import Tree
from tf_detreg.retrieval.engines import _error


@pytest.mark.parametrize(
    ("leaves", "size", "needed", "chosen"),
    [
        (1000, 5000, (100, 50), (104, 58)),  # 64 < 96 < 100 <= 104 <= 112 <= 128
        (1000, 5000, (4, 10), (4, 10)),
        (1000, 5000, (5, 400), (5, 400)),
        (50, 5000, (50, 50), (50, 58)),
        (3, 5000, (1, 1), (1, 10)),
        (1000, 5000, (100, 1500), (104, 1529)),  # nothing below 4 · 400 candidates reaches the target
        (1000, 300, (100, 300), (104, 300)),
        (1000, 300, (1000, 301), (1000, 300)),  # not even all of them
    ],
)
def test_few_leaves_and_candidates_are_chosen_that_reach_the_target(leaves, size, needed, chosen):
    tree = types.SimpleNamespace(leaves=leaves, size=size, asked=[])

    def found(queries, k, own, kth):
        assert (queries, k, own, kth) == ("queries", 10, "own", "kth")
        assert 0 < tree.visited <= leaves and 0 < tree.rescored <= size
        tree.asked.append((tree.visited, tree.rescored))
        assert len(tree.asked) < 100
        enough = tree.visited >= needed[0] and tree.rescored >= needed[1]
        return np.array([1.0, 0.5] if enough else [1.0, 0.4])

    tree.found = found
    Tree.tune(tree, "queries", 10, "own", "kth", 0.75)
    assert (tree.visited, tree.rescored) == chosen


def test_a_tree_is_widened_by_an_eighth_until_it_is_searched_whole():
    tree = types.SimpleNamespace(leaves=20, size=30, visited=9, rescored=24)
    seen = []
    while Tree.widen(tree):
        seen.append((tree.visited, tree.rescored))
        assert len(seen) < 10
    assert seen == [(11, 27), (13, 30), (15, 30), (17, 30), (20, 30)]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, np.nan], (1, -1, 1)),
        ([-1.0], (-1, -1, 1)),
        ([0.0] * 300 + [0.1] * 300, (0.05, 0.045, 0.055)),  # ±3/600
        ([0.0] * 5000 + [0.1] * 5000, (0.05, 0.05 - 0.00098, 0.05 + 0.00098)),  # ±1.96 · 0.05/100
        ([np.nan], (np.nan,) * 3),
        ([], (np.nan,) * 3),
    ],
)
def test_the_interval_of_an_error_lies_within_what_is_possible(differences, expected):
    np.testing.assert_allclose(_error(np.array(differences)), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"steep": (1, 2), "even": (3, 3.9)}, "even"),  # 2 · 2² against 3.9 · 1.3²
        ({"steep": (1, 2), "even": (5, 6)}, "steep"),  # 2 · 2² against 6 · 1.2²
    ],
)
def test_a_layout_is_chosen_by_what_a_power_law_expects_of_the_whole_gallery(seconds, chosen, monkeypatch):
    asked = []

    def search_seconds(queries, part, k, layout, aim, kth):
        asked.append((layout, len(part)))
        assert (queries, k, aim, kth) == ("queries", 7, 0.9, len(part))
        assert (np.diff(part[:, 0]) > 0).all()
        return seconds[layout][len(part) == 400]

    monkeypatch.setattr(approximate, "LAYOUTS", tuple(seconds))
    monkeypatch.setattr(approximate, "TRIAL_SHARES", (1 / 64, 1 / 16))
    # A bar of its own would stand inside the one that counts the layouts.
    monkeypatch.setattr(
        approximate, "truth", lambda queries, part, k, own, progress: len(part) if progress is False else 0
    )
    monkeypatch.setattr(approximate, "search_seconds", search_seconds)
    gallery = np.arange(6400, dtype=np.float32)[:, None]
    assert approximate.fastest_layout("queries", gallery, 7, 0.9, 0, False) == chosen
    assert asked == [(layout, size) for size in (100, 400) for layout in seconds]

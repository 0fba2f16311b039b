"""How many candidates are scored again: the choice by itself."""

import types

import numpy as np
import pytest

from tf_detreg.retrieval.rescoring import Rescoring


@pytest.mark.parametrize(
    ("k", "itself", "size", "needed", "chosen"),
    [
        (10, False, 1000, 10, 10),
        (10, True, 1000, 11, 11),
        (10, False, 1000, 100, 100),
        (10, False, 1000, 101, 110),  # 80 < 100 < 101 <= 110 <= 120, an eighth of which is 13
        (2, False, 1000, 1, 1),
        (10, False, 50, 60, 50),  # the target is reached by none: all of them are scored
        (10, False, 50, 50, 50),
    ],
)
def test_few_candidates_are_chosen_that_reach_the_target(k, itself, size, needed, chosen):
    own = "own" if itself else None
    searcher = types.SimpleNamespace(size=size, asked=[])

    def found(queries, depth, item, kth):
        assert (queries, depth, item, kth) == ("queries", k, own, "kth")
        assert 0 < searcher.rescored <= size
        searcher.asked.append(searcher.rescored)
        assert len(searcher.asked) < 100
        return np.array([1.0, 0.5] if searcher.rescored >= needed else [1.0, 0.4])

    searcher.found = found
    Rescoring.tune(searcher, "queries", k, own, "kth", 0.75)
    assert searcher.rescored == chosen


def test_the_candidates_are_widened_by_an_eighth_until_all_are_scored():
    searcher, seen = types.SimpleNamespace(size=20, rescored=9), []
    while Rescoring.widen(searcher):
        seen.append(searcher.rescored)
        assert len(seen) < 10
    assert seen == [11, 13, 15, 17, 20]


class Listed(Rescoring):
    """A searcher whose candidates are given."""

    listed = np.array([[2, -1, 0], [1, 3, -1], [-1, -1, -1]])

    def candidates(self, queries, count):
        self.asked = count
        return self.listed[: len(queries)]

    def settings(self):
        return {}


def test_candidates_are_scored_exactly_and_what_is_missing_comes_last():
    angles = np.radians([0, 60, 60, 90])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    searcher = Listed(gallery, 2)
    queries = gallery[[0, 3, 3]]
    ids, scores = searcher.search(queries, 4)
    assert ids.tolist() == [[0, 2, -1, -1], [3, 1, -1, -1], [-1] * 4] and searcher.asked == 4
    missing = -np.inf
    near = np.sqrt(0.75)
    np.testing.assert_allclose(
        scores, [[1, 0.5, missing, missing], [1, near, missing, missing], [missing] * 4], rtol=1e-6
    )
    ids, scores = searcher.search(queries, 2, own=np.array([0, 1, 3]))
    assert ids.tolist() == [[2, -1], [3, -1], [-1, -1]] and searcher.asked == 3
    assert np.isinf(scores[:, 1]).all() and (scores[:, 1] < 0).all()
    searcher.search(queries, 1)
    assert searcher.asked == 2
    searcher.search(queries, 1, wider=1.5)
    assert searcher.asked == 3
    searcher.search(queries, 1, wider=9)
    assert searcher.asked == 4

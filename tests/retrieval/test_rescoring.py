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
    assert seen == [11, 13, 15, 17, 20]

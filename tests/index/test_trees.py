"""What a tree is tuned on."""

import types

import numpy as np
import pytest

from tf_detreg.index import nearest, trees


def test_a_sample_holds_live_items_alone():
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    removed = np.zeros(10, bool)
    removed[[0, 3]] = True

    class Base:
        count = 10

    base = Base()
    base.vectors, base.removed = vectors, removed
    rows, found = trees.sample(base, 5)
    assert len(rows) == 5 and (np.diff(rows) > 0).all() and not removed[rows].any()
    np.testing.assert_array_equal(found, vectors[rows])
    assert trees.sample(base)[0].tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
    base.removed = None
    assert trees.sample(base)[0].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("k", "allowed", "wanted"),
    [
        (3, [1, 1, 1], [12, 10, 11]),
        (2, [1, 1, 1], [12, 10]),
        (2, [1, 0, 1], [12, 10]),
        (3, [1, 0, 1], None),
        (4, [1] * 3, None),
    ],
)
def test_what_a_tree_lists_counts_if_it_is_allowed_and_enough(k, allowed, wanted):
    listed = np.array([[2, 1, 0, -1]]), np.array([[0.9, 0.7, 0.8, -np.inf]], np.float32)
    tree = types.SimpleNamespace(search=lambda queries, ask, progress, wider: listed)
    found = nearest._allowed(tree, np.eye(3)[:1], 4, k, np.array(allowed, bool), 10, 1.0, False)
    assert (found if found is None else found.rows.tolist()) == (wanted if wanted is None else [wanted])


@pytest.mark.parametrize(("recalls", "taken"), [([0.97, 0.99], 0), ([0.9699, 0.98], 1), ([0.5, 0.96], None)])
def test_an_engine_that_misses_neighbors_is_passed_over(recalls, taken, monkeypatch, caplog):
    """They are tuned to find 99 % of the neighbors; with 97 % one is still of use."""
    names = ["scann", "usearch"]
    found = iter([types.SimpleNamespace(recall=recall) for recall in recalls])
    monkeypatch.setattr(trees.choosing, "usable", lambda engine: list(names))
    monkeypatch.setattr(trees.choosing, "builder", lambda name, progress: None)
    monkeypatch.setattr(trees, "_calibrated", lambda *_: next(found))
    base = types.SimpleNamespace(count=10)
    if taken is None:
        with pytest.raises(trees.NoEngine, match=r"scann finds 50\.0 % of the true neighbors; usearch finds 96\.0 %"):
            trees.build(base, 5)
    else:
        name, tuned = trees.build(base, 5)
        assert (name, tuned.recall) == (names[taken], recalls[taken])
    assert caplog.text.count("another engine answers") == (len(recalls) if taken is None else taken)

"""From how many items on a search, a compression and an upkeep take another way: to the item."""

import types

import numpy as np
import pytest

from tf_detreg.index import Index, nearest, searching, trees
from tf_detreg.retrieval import approximate, codes


@pytest.fixture
def answered(monkeypatch):
    """Say which engine answers and with what notice, for an index of so many items, of which a filter keeps some."""
    monkeypatch.setattr(nearest, "exactly", lambda *_: "exact")
    monkeypatch.setattr(nearest, "by_tree", lambda *_: "tree")
    ready = types.SimpleNamespace(
        tuned=types.SimpleNamespace(tree=None), base=None, engine="scann", state=types.SimpleNamespace(parts=())
    )
    tuner = types.SimpleNamespace(ready=lambda *_: ready, recall=lambda *_: 0.99)

    def ask(live, engine="auto", kept=None, tree=None):
        state = types.SimpleNamespace(live=live, tree=tree, parts=())
        rows = None if kept is None else np.arange(kept)
        searcher = types.SimpleNamespace(_tuner=tuner)
        _, found, name, recall, notice = searching.Searcher._by_engine(searcher, state, None, 3, rows, engine, False)
        assert (found, recall) == (("exact", 1.0) if name == "exact" else ("tree", 0.99))
        return name, notice

    return ask


def test_a_search_takes_a_tree_from_so_many_items_on(answered):
    assert answered(49_999) == ("exact", None) and answered(50_000) == ("scann", None)
    # Where the index has one already, it is taken as soon as it gains anything.
    assert answered(999, tree={}) == ("exact", None) and answered(1_000, tree={}) == ("scann", None)
    assert answered(50_000, "exact") == ("exact", None)
    few = "Exact search was used: 999 items are too few for a search tree."
    assert answered(999, "scann") == ("exact", few) and answered(1_000, "scann") == ("scann", None)
    assert answered(1_000, "usearch") == ("scann", None)


def test_a_filter_that_keeps_a_tenth_is_loose_enough(answered):
    assert answered(50_000, kept=5_000) == ("scann", None) and answered(50_000, kept=4_999) == ("exact", None)
    strict = "Exact search was used: the filter keeps few items."
    assert answered(2_000, "scann", kept=200) == ("scann", None)
    assert answered(2_000, "scann", kept=199) == ("exact", strict)
    assert answered(10, "scann", kept=0) == ("exact", strict)


def test_an_engine_that_is_missing_or_lists_too_few_is_said(answered, monkeypatch):
    monkeypatch.setattr(nearest, "by_tree", lambda *_: None)
    few = "The search tree listed too few of the items that may be found; exact search answered instead."
    assert answered(50_000) == ("exact", few)


def test_tuning_and_compressing_begin_at_these_numbers(monkeypatch):
    monkeypatch.setattr(searching, "SCANN_FROM", 20)
    monkeypatch.setattr(approximate, "SMALLEST_GALLERY", 20)
    rows = np.random.default_rng(0).standard_normal((20, 4))
    enough, few = Index(rows), Index(rows[:19])
    asked = []
    for one in (enough, few):
        monkeypatch.setattr(one._tuner, "ready", lambda *a, **b: asked.append((a[1:], b)) or 1 / 0)
        monkeypatch.setattr(one._tuner, "compress", lambda *a: asked.append(a) or 1 / 0)
    assert few.tune(5) is None
    with pytest.raises(ZeroDivisionError):
        enough.tune(5, False, "usearch")
    with pytest.raises(ValueError, match=r"^19 items are too few to be compressed: 20 or more"):
        few.compress("int8", k=5)
    with pytest.raises(ZeroDivisionError):
        enough.compress("float16", 3, k=5, target=0.9, progress=False)
    assert asked == [((5, False, "usearch"), {"replace": True}), (codes.Layout("float16", 3), 5, 0.9, False)]


@pytest.mark.parametrize(("left", "layout", "expected"), [(20, None, "tune"), (19, None, None)])
def test_compacting_builds_a_tree_again_from_these_numbers(left, layout, expected, monkeypatch):
    _compacted(left, layout, expected, monkeypatch)


@pytest.mark.parametrize(("left", "expected"), [(10, "compress"), (9, None)])
def test_compacting_compresses_again_from_these_numbers(left, expected, monkeypatch):
    _compacted(left, codes.Layout("int8", None), expected, monkeypatch)


def _compacted(left, layout, expected, monkeypatch):
    monkeypatch.setattr(searching, "SCANN_FROM", 20)
    monkeypatch.setattr(approximate, "SMALLEST_GALLERY", 10)
    opened = Index(np.random.default_rng(0).standard_normal((30, 4)))
    with opened._store.changing() as change:
        change.set("tree", {"engine": "scann", "depth": 25, "target": 0.9, "folder": "x", "segment": 0})
    monkeypatch.setattr(trees, "engine_of", lambda tree: tree["engine"])
    monkeypatch.setattr(opened._tuner, "layout", lambda state: layout)
    asked = []
    monkeypatch.setattr(opened, "tune", lambda *a: asked.append(("tune", *a)))
    monkeypatch.setattr(opened._tuner, "compress", lambda *a: asked.append(("compress", *a)))
    opened.remove(range(30 - left))
    opened.compact(progress=False)
    whole = {
        "tune": ("tune", min(25, left), False, "scann"),
        "compress": ("compress", layout, min(25, left), 0.9, False),
    }
    assert asked == ([whole[expected]] if expected else [])
    # What is in one piece already is left alone.
    opened.compact(progress=False)
    assert len(asked) == bool(expected)


def nested(levels):
    value = "[{" * 600
    for _ in range(levels - 1):
        value = [value]
    return value


def test_metadata_are_at_most_so_deep():
    """SQLite calls JSON beyond some 1,000 levels malformed, in every filter on the index."""
    index = Index(np.eye(3), metadata=[{"a": nested(500)}, {"a": ["[", {"b": '"['}] * 300}, {}])
    assert index.count("a = 3") == 0
    with pytest.raises(ValueError, match=r"`metadata` must be at most 500 levels deep; received more \(row 1\)"):
        index.add(np.eye(3)[:2], ["a", "b"], [{}, {"a": nested(501)}])
    assert len(index) == 3

"""Small parts of evaluation and search: what counts as changed, and what a search is expected to cost."""

import dataclasses
import itertools
import time
import types

import numpy as np
import pytest

from tf_detreg import retrieval
from tf_detreg.retrieval import approximate, codes, engines, exact, inputs, pairs, rescoring


@pytest.mark.parametrize(
    ("dtype", "factor", "changed"),
    [
        (np.float32, 1.0, False),
        (np.float64, 1.0, False),
        (np.float64, 1.0 + 1e-3, True),
        (np.float32, 2.0, True),
        (np.float16, 1.0, False),
        (np.float16, 1.005, False),  # what rounding to half precision does
        (np.float16, 1.05, True),
    ],
)
def test_rows_of_another_length_are_scaled_and_it_is_said(dtype, factor, changed):
    rows = np.random.default_rng(0).normal(size=(50, 16))
    rows *= factor / np.linalg.norm(rows, axis=1, keepdims=True)
    unit, said = inputs.unit_rows(rows.astype(dtype), "queries")
    assert said == changed and unit.dtype == np.float32 and unit.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-5)
    unit, _ = inputs.unit_rows(np.asfortranarray(unit), "queries")  # row after row, as the searches read them
    assert unit.flags.c_contiguous


def test_the_cost_of_exact_search_is_the_slope_between_few_and_more_queries(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(exact, "workers", lambda: 2)
    monkeypatch.setattr(exact, "block_size", lambda items, largest: 5)
    monkeypatch.setattr(engines, "_TOO_SMALL", 0)
    asked = []

    def exactly(rows):
        asked.append(len(rows))
        clock[0] += 7.0 + 0.5 * len(rows)  # what it costs to begin does not count

    def task(queries):
        gallery, rules = np.zeros((100, 4)), types.SimpleNamespace(largest_class=3)
        return types.SimpleNamespace(queries=np.zeros((queries, 4)), gallery=gallery, rules=rules, exactly=exactly)

    assert engines._exact_seconds(task(1000)) == pytest.approx(500.0)
    assert asked == [10, 10, 30]
    assert engines._exact_seconds(task(20)) == pytest.approx(10.0)
    assert asked[3:] == [10, 10, 20]
    assert engines._exact_seconds(task(10)) == 0.0  # no more than a block: it hardly matters
    monkeypatch.setattr(engines, "_TOO_SMALL", 1e11)
    assert engines._exact_seconds(task(1000)) == 0.0 and len(asked) == 6


def test_plots_show_lines_and_the_equal_error_rate():
    from scipy.stats import norm

    from tf_detreg.retrieval import decision_plots

    scores = {"known": np.array([0.5, 0.6, 0.9]), "unknown": np.array([0.1, 0.2])}
    (axes,) = decision_plots.histograms(scores, {"threshold": 0.4, "another": 0.7}).axes
    assert [line.get_xdata()[0] for line in axes.lines] == [0.4, 0.7]
    assert [line.get_label() for line in axes.lines] == ["threshold", "another"]
    assert {text.get_text() for text in axes.get_legend().get_texts()} >= {"known (3)", "unknown (2)", "threshold"}
    curve = types.SimpleNamespace(far=np.array([0.0, 0.1, 0.4, 1.0]), tar=np.array([0.2, 0.5, 0.8, 1.0]))
    for rate, shown in ((0.25, [norm.ppf(0.25)]), (0.0, []), (1.0, [])):
        report = types.SimpleNamespace(curve=curve, eer=rate, impostor=1000)
        (axes,) = decision_plots.det(report).axes
        plotted, marked = axes.lines
        assert list(marked.get_xdata()) == list(marked.get_ydata()) == shown
        np.testing.assert_allclose(plotted.get_xdata(), norm.ppf([0.1, 0.4]))
        np.testing.assert_allclose(plotted.get_ydata(), norm.ppf([0.5, 0.2]))


def test_a_metric_is_shown_with_its_interval_where_it_has_one():
    rows = np.random.default_rng(0).normal(size=(12, 4))
    report = retrieval.evaluate(rows, np.arange(12) // 3, k=(1, 2), progress=False)
    report = dataclasses.replace(report, intervals={"recall@1": (0.25, 0.5), "recall@2": (float("nan"), float("nan"))})
    shown = {row["metric"]: row["95 % interval"] for row in report.rows()}
    assert shown["R@1"] == "25.00 – 50.00" and shown["R@2"] == shown["MAP@R"] == ""


@pytest.mark.parametrize(("leaves", "rescored"), [(37, 60), (1, 10), (100, 399), (64, 2000)])
def test_a_tree_is_tuned_to_little_more_than_it_needs(leaves, rescored, monkeypatch):
    tree = approximate.Tree.__new__(approximate.Tree)
    tree.leaves, tree.size = 100, 10_000

    def found(*_):
        return np.array([float(tree.visited >= leaves and tree.rescored >= rescored)])

    monkeypatch.setattr(tree, "found", found, raising=False)
    tree.tune(np.zeros((1, 2)), 10, None, np.zeros(1), 0.9)
    assert leaves <= tree.visited <= max(leaves + leaves // 8 + 1, 4)
    assert rescored <= tree.rescored <= 2 * rescored + 10


class Listed(rescoring.Rescoring):
    """Lists what it is told."""

    def candidates(self, queries, count):
        return np.resize(np.array([[2, -1, 0]]), (len(queries), 3))[:, :count]

    def settings(self):
        return {}


def test_what_is_not_listed_is_not_found():
    gallery = np.eye(3, dtype=np.float32)
    found = Listed(gallery)
    ids, scores = found.search(gallery[:1], 3)
    assert ids.tolist() == [[0, 2, -1]] and scores.tolist() == [[1.0, 0.0, -np.inf]]
    ids, _ = found.search(gallery[:1], 2, own=np.array([0]))
    assert ids.tolist() == [[2, -1]]
    found.rescored = 1
    assert found.widen() and found.rescored == 2
    assert found.widen() and found.rescored == 3 and not found.widen()
    large = Listed(np.zeros((1000, 2), np.float32), 80)
    assert large.widen() and large.rescored == 90


def test_candidates_of_all_blocks_compete(monkeypatch):
    monkeypatch.setattr(codes, "_BLOCK", 8)
    gallery, _ = inputs.unit_rows(np.random.default_rng(0).normal(size=(50, 8)), "gallery")
    nearest = np.sort(np.argsort(-gallery[:6] @ gallery.T, axis=1)[:, :5], axis=1)
    for kind in ("float16", "int8", "binary"):
        listed = codes.Codes.build(gallery, 5, codes.Layout(kind)).candidates(gallery[:6], 5)
        assert listed.shape == (6, 5) and (listed == np.arange(6)[:, None]).any(axis=1).all()
        assert all(len(set(row)) == 5 for row in listed.tolist())
        if kind == "float16":
            np.testing.assert_array_equal(np.sort(listed, axis=1), nearest)


def test_a_tree_is_widened_by_an_eighth_until_all_of_it_is_searched():
    tree = approximate.Tree.__new__(approximate.Tree)
    tree.leaves, tree.size, tree.visited, tree.rescored = 12, 100, 9, 80
    assert tree.widen() and (tree.visited, tree.rescored) == (11, 90)
    assert tree.widen() and (tree.visited, tree.rescored) == (12, 100)
    assert not tree.widen()


def test_pairs_of_two_classes_are_drawn_as_often_as_there_are_some():
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [1, 2, 30, 40]))
    (first, second), of = pairs._impostor(classes, 1000, np.random.default_rng(1))
    sizes = np.bincount(classes)
    assert of == sum(a * b for a, b in itertools.combinations(sizes.tolist(), 2)) > 1000 == len(first)
    assert (classes[first] != classes[second]).all()
    share = sizes * (73 - sizes) / (sizes * (73 - sizes)).sum()
    assert np.abs(np.bincount(classes[first]) - 1000 * share).max() <= 1
    (first, second), again = pairs._impostor(classes, 2000, np.random.default_rng(1))
    assert again == of == len(set(zip(first.tolist(), second.tolist(), strict=True)))
    assert (classes[first] != classes[second]).all()


@pytest.mark.parametrize(("needed", "most"), [(1, 1), (10, 10), (37, 41), (300, 300)])
def test_no_more_candidates_are_rescored_than_are_needed(needed, most, monkeypatch):
    searcher = Listed(np.zeros((300, 2), np.float32))
    monkeypatch.setattr(searcher, "found", lambda *_: np.array([float(searcher.rescored >= needed)]))
    searcher.tune(np.zeros((1, 2)), 10, None, np.zeros(1), 0.9)
    assert needed <= searcher.rescored <= most

"""R@1 of each class: counted by hand, the worst first, escaped, and short whatever the number of classes."""

import doctest
import re

import numpy as np
import pytest

from tf_detreg.analysis import class_recall

PER_QUERY = {
    "relevant": np.array([2, 2, 2, 1, 1, 0, 3, 3, 3, 3]),
    "first_rank": np.array([1, 4, 1, 1, 1, 0, 2, 3, 2, 9]),
}
LABELS = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
NAMES = ["<script>alert(1)</script>", "b", "alone", "never"]


def test_classes_are_counted_and_sorted_worst_first():
    found = class_recall.by_class(PER_QUERY, LABELS, NAMES)
    assert [(one.name, one.hits, one.queries) for one in found] == [
        ("never", 0, 4),
        ("<script>alert(1)</script>", 2, 3),
        ("b", 2, 2),
    ]
    low, high = found[0].interval
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(0.4899, abs=1e-4)  # z² / (n + z²)


def test_of_equal_classes_that_with_more_queries_comes_first():
    per_query = {"relevant": np.ones(5, int), "first_rank": np.full(5, 2)}
    found = class_recall.by_class(per_query, [0, 1, 1, 1, 2], "abc")
    assert [one.name for one in found] == ["b", "a", "c"]


def test_the_section_says_n_and_interval_and_escapes_names():
    section = class_recall.section(class_recall.by_class(PER_QUERY, LABELS, NAMES))
    assert "of 3." in section.lead and "Median 67 %" in section.lead
    assert "1 classes find all their queries, 1 none" in section.lead
    assert "<script>" not in section.fragment and "&lt;script&gt;alert(1)" in section.fragment
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", section.fragment)
    assert rows[0] == ("never", "4", "0.0", "0.0 to 49.0")
    assert "<details>" not in section.fragment


def test_many_classes_are_folded_and_their_number_is_limited():
    labels = np.repeat(np.arange(5000), 20)
    rank = 1 + (np.random.default_rng(0).random(100_000) > 0.5)
    found = class_recall.by_class({"relevant": np.ones(100_000, int), "first_rank": rank}, labels, np.arange(5000))
    section = class_recall.section(found)
    before, after = section.fragment.split("<details>")
    assert before.count("<tr><td>") == 15 and after.count("<tr><td>") == 985
    assert "The next 985 classes; the best 4,000 are left out" in after
    assert len(section.fragment) < 400_000


def test_examples():
    assert doctest.testmod(class_recall).failed == 0

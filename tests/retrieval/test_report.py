"""What a report says in words."""

import dataclasses
import math

import pytest

from tf_detreg.retrieval.report import Approximation, RetrievalReport

EXACT = RetrievalReport(
    {"recall@1": 0.5, "recall@10": 0.75, "precision@1": 0.25},
    {"recall@1": (0.4, 0.6), "recall@10": (math.nan, math.nan)},
    {},
    {},
    "exact",
    "leave-one-out",
    queries=1_200,
    queries_without_positives=0,
    gallery=3_400,
    classes=1_000,
    dimension=8,
    seconds=2.26,
)
NEAR = Approximation(0.991, (0.985, 0.997), 10, 0.99, 1_500, {"recall@1": (-0.001, -0.003, 0.002)}, {}, 1.0)
SAID = "1,200 queries of 1,000 classes, 3,400 items, leave-one-out, exact search, 2.3 s."


def test_the_summary_counts_what_was_searched_and_left_out():
    assert EXACT.summary() == SAID
    assert dataclasses.replace(EXACT, queries_without_positives=1_300).summary() == (
        f"{SAID} 1,300 queries have no relevant item in their gallery and are left out."
    )


def test_the_summary_says_how_far_an_approximate_search_was_off():
    tree = dataclasses.replace(EXACT, engine="scann", approximation=NEAR)
    assert tree.summary().removeprefix(SAID.replace("exact", "scann")) == (
        " ScaNN found 99.10 % of the true 10 nearest neighbors (98.50 – 99.70 %, 1,500 sampled queries); this moves "
        "R@1 by -0.10 points (-0.30 – +0.20)."
    )
    for unknown in ({}, {"recall@1": (math.nan, math.nan, math.nan)}):
        near = dataclasses.replace(NEAR, metric_error=unknown)
        found = dataclasses.replace(tree, approximation=near).summary()
        assert found.endswith("1,500 sampled queries).") and "moves" not in found


def test_rows_have_intervals_where_they_are_known():
    assert [(row["%"], row["95 % interval"]) for row in EXACT.rows()] == [
        ("50.00", "40.00 – 60.00"),
        ("75.00", ""),
        ("25.00", ""),
    ]


def test_values_are_read_by_rank():
    assert EXACT.recall == {1: 0.5, 10: 0.75} and EXACT.precision == {1: 0.25}
    assert math.isnan(EXACT.map_at_r)
    assert dataclasses.replace(EXACT, metrics={"map@r": 0.3}).map_at_r == pytest.approx(0.3)

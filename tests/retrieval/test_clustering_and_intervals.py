"""Clustering scores, bootstrap intervals and the report."""

import dataclasses
import doctest
import importlib
import io
import json
import pkgutil

import numpy as np
import pytest

from tf_detreg import retrieval
from tf_detreg.retrieval import clustering, intervals


def test_pairwise_f1_by_hand():
    # classes {0,1,2} {3,4}; clusters {0,1} {2,3,4}: 4 pairs of one class, 1 + 3 pairs in one cluster, both: 01, 34.
    assert clustering.pairwise_f1(np.array([0, 0, 0, 1, 1]), np.array([5, 5, 9, 9, 9])) == pytest.approx(4 / 8)
    assert clustering.pairwise_f1(np.arange(4), np.arange(4)) == 1.0


def test_clusters_of_well_separated_classes_are_found():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 20)
    points = np.eye(5)[labels] + 0.05 * rng.standard_normal((100, 5))
    report = retrieval.evaluate(points, labels, k=1, clusters=True)
    assert report.metrics["nmi"] == report.metrics["ami"] == report.metrics["f1"] == pytest.approx(1.0)
    shuffled = retrieval.evaluate(points, rng.permutation(labels), k=1, clusters=True)
    assert shuffled.metrics["ami"] < 0.2


def test_fewer_points_than_clusters_are_noted(recwarn):
    labels = np.repeat(np.arange(5), 4)
    report = retrieval.evaluate(np.eye(3)[labels % 3], labels, k=1, clusters=True)
    assert any("k-means filled 3 of 5 clusters" in note for note in report.notes)
    assert not [warning for warning in recwarn if "distinct clusters" in str(warning.message)]


def test_bootstrap_draws_classes_not_queries():
    # 20 classes, each wholly right or wholly wrong: the standard error is that of 20 coins, not of 2000.
    classes = np.repeat(np.arange(20), 100)
    values = (classes % 2).astype(float)
    low, high = intervals.over_classes(values, classes)
    assert 0.2 < low < 0.35 and 0.65 < high < 0.8
    assert intervals.over_classes(values, classes) == (low, high)


def test_bootstrap_leaves_queries_without_positives_out_and_needs_two_classes():
    values = np.array([1.0, np.nan, 1.0, np.nan])
    assert intervals.over_classes(values, np.array([0, 0, 1, 2])) == (1.0, 1.0)
    assert intervals.over_classes(values, np.array([0, 0, 0, 1])) is None


def test_report_as_json_markdown_and_table():
    import rich.console

    rng = np.random.default_rng(1)
    report = retrieval.evaluate(rng.standard_normal((40, 4)), ["a", "b"] * 20, groups=np.arange(40) % 4, k=(1, 3))
    content = json.loads(report.to_json())
    assert content["metrics"]["recall@3"] == report.recall[3]
    assert set(content["per_class"]) == {"a", "b"} and set(content["per_group"]) == {"0", "1", "2", "3"}
    assert "per_query" not in content
    assert f"| R@1 | {100 * report.recall[1]:.2f} |" in report.to_markdown()
    report = dataclasses.replace(report, notes=("ScaNN cannot be loaded ([libtensorflow] is missing)",))
    console = rich.console.Console(width=120, record=True, file=io.StringIO())
    console.print(report.to_table())
    text = console.export_text()
    assert "MAP@R" in text and "cross-group" in text and "[libtensorflow]" in text


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(retrieval.__path__)])
def test_examples_in_docstrings(module):
    try:
        found = importlib.import_module(f"tf_detreg.retrieval.{module}")
    except ModuleNotFoundError as missing:
        if missing.name.startswith("tf_detreg"):
            raise
        pytest.skip(f"the extra with {missing.name} is not installed")
    assert doctest.testmod(found).failed == 0

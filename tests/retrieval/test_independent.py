"""Agreement with pytorch-metric-learning's calculator, whose values are frozen in `tests/data/retrieval_pml.npz`."""

import pathlib

import numpy as np
import pytest

from tf_detreg import retrieval

DATA = pathlib.Path(__file__).parents[1] / "data" / "retrieval_pml.npz"
NAMES = {
    "recall@1": "precision_at_1",
    "r_precision": "r_precision",
    "map@r": "mean_average_precision_at_r",
    "map": "whole_mean_average_precision",
    "mrr": "whole_mean_reciprocal_rank",
}


@pytest.mark.parametrize("protocol", ["alone", "gallery"])
def test_metrics_equal_those_of_pytorch_metric_learning(protocol):
    data = np.load(DATA)
    points, labels = data["points"], data["labels"]
    if protocol == "alone":
        report = retrieval.evaluate(points, labels, k=(1, 2))
    else:
        report = retrieval.evaluate(points[120:], labels[120:], points[:120], labels[:120], k=(1, 2))
    assert report.queries_without_positives > 0
    for ours, theirs in NAMES.items():
        # 1e-5: torch breaks near ties (below 1e-6) as its float32 rounding falls; with us they count against.
        assert report.metrics[ours] == pytest.approx(float(data[f"{protocol}/{theirs}"]), abs=1e-5), ours

"""Plots hold what was measured, each part with its label."""

import types

import numpy as np
import pytest
from scipy.stats import norm

from tf_detreg.retrieval import decision_plots


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_error_rates_are_drawn_on_normal_deviate_axes(tmp_path):
    curve = types.SimpleNamespace(far=np.array([0, 0.1, 0.4, 0.5, 1]), tar=np.array([0, 0.5, 0.7, 1, 1]))
    report = types.SimpleNamespace(curve=curve, eer=0.25, impostor=100)
    figure = decision_plots.det(report, tmp_path / "det.png")
    assert (tmp_path / "det.png").read_bytes()[1:4] == b"PNG"
    assert not hasattr(decision_plots, "Figure")  # Matplotlib is imported when a plot is drawn
    (axes,) = figure.axes
    line, point = axes.lines
    np.testing.assert_allclose(line.get_xdata(), norm.ppf([0.1, 0.4]))
    np.testing.assert_allclose(line.get_ydata(), norm.ppf([0.5, 0.3]))
    np.testing.assert_allclose([*point.get_xdata(), *point.get_ydata()], norm.ppf([0.25, 0.25]))
    assert labels(figure) == ["EER 25.00 %"]
    # A rate of which less than one pair is expected has no tick.
    shown = ["1", "5", "20", "50", "80", "95"]
    assert [text.get_text() for text in axes.get_xticklabels()] == shown
    assert [text.get_text() for text in axes.get_yticklabels()] == shown
    assert "false accepts" in axes.get_xlabel() and "false rejects" in axes.get_ylabel()
    for eer in (0.0, 1.0):
        report.eer = eer
        assert len(decision_plots.det(report).axes[0].lines[1].get_xdata()) == 0
    report.curve = None
    with pytest.raises(ValueError, match="`report` holds no curve"):
        decision_plots.det(report)


def test_histograms_have_area_one_and_lines_where_they_were_asked_for():
    scores = {"same": np.array([0.5, 0.9, 1.0]), "other": np.linspace(-1, 0.2, 1200)}
    figure = decision_plots.histograms(scores, {"threshold": 0.4, "old": 0.1})
    (axes,) = figure.axes
    assert [line.get_xdata()[0] for line in axes.lines] == [0.4, 0.1]
    assert sorted(labels(figure)) == ["old", "other (1,200)", "same (3)", "threshold"]
    bars = [[patch for patch in container] for container in axes.containers]
    assert [len(each) for each in bars] == [80, 80]
    for each in bars:
        assert sum(bar.get_height() * bar.get_width() for bar in each) == pytest.approx(1)
    assert bars[0][0].get_x() == -1.0 and bars[0][-1].get_x() + bars[0][-1].get_width() == pytest.approx(1.0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("score", "density")


def test_reliability_is_drawn_for_each_set_that_was_measured():
    fitted = types.SimpleNamespace(reliability=[(0.2, 0.25, 9), (0.8, 0.7, 5)], calibration_error=0.012)
    test = types.SimpleNamespace(reliability=[(0.5, 0.4, 3)], calibration_error=0.1)
    figure = decision_plots.reliability(types.SimpleNamespace(fitted=fitted, test=test))
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 1], [0.2, 0.8], [0.5]]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0, 1], [0.25, 0.7], [0.4]]
    assert labels(figure) == ["fitted on: error 1.2 points", "other classes: error 10.0 points"]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 1))
    alone = decision_plots.reliability(types.SimpleNamespace(fitted=fitted, test=None))
    assert labels(alone) == ["fitted on: error 1.2 points"]

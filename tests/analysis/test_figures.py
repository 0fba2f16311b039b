"""What the figures of an analysis show, compared with what was looked at once."""

import numpy as np
import pytest

from tests.figures import check, figures_of
from tf_detreg.analysis import lipschitz, neighbors, report


@pytest.fixture(scope="module")
def stretched():
    """Two parts, one with all singular values and one with the largest alone."""
    spectrum = np.array([[4.0, 2.0, 1.0], [8.0, 1.0, 0.5], [1.0, 1.0, 1e-9]])
    secants = {"within classes": np.array([0.5, 1.0, 1.5, 4.0]), "noise": np.array([2.0, 3.0])}
    head = lipschitz.PartReport(
        spectrum[:, 0], np.array([5.0, 9.0, 2.0]), np.array([1.0, -2.0, 0.0]), spectrum, secants
    )
    backbone = lipschitz.PartReport(np.array([1.0, 2.0, 6.0]), np.array([3.0, 4.0, 7.0]), None, None, secants)
    return lipschitz.LipschitzReport({"head": head, "backbone": backbone})


def test_a_report_on_stretching_draws_singular_values_or_the_largest_and_secants(stretched, tmp_path):
    with figures_of() as found:
        stretched.plot(tmp_path / "a.png")
    ((figure, options),) = found
    check("lipschitz", figure, options)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_a_report_on_stretching_names_its_numbers(stretched):
    parts = stretched.to_dict()
    names = ["spectral norm", "Frobenius norm", "log det", "condition number", "secant, within classes"]
    assert list(parts["head"]) == [*names, "secant, noise"]
    assert list(parts["backbone"]) == [*names[:2], names[4], "secant, noise"]
    assert parts["head"]["spectral norm"] == {"median": 4.0, "max": 8.0, "samples": 3}
    assert parts["head"]["Frobenius norm"] == {"median": 5.0, "max": 9.0, "samples": 3}
    assert parts["head"]["log det"] == {"median": 0.0, "max": 1.0, "samples": 3}
    assert parts["head"]["condition number"] == pytest.approx({"median": 16.0, "max": 1e9, "samples": 3})
    assert parts["backbone"]["secant, noise"] == {"median": 2.5, "max": 3.0, "samples": 2}
    assert stretched.summary() == ("Spectral norm, median over samples: head 4 (at most 8), backbone 2 (at most 6).")
    empty = lipschitz.LipschitzReport({})
    assert empty.summary() == "Spectral norm, median over samples: not measured."


def test_training_curves_are_drawn():
    history = [{"epoch": 1, "loss": 2.0, "R@1": 50.0}, {"epoch": 2, "loss": 1.0, "R@1": 75.5}]
    with figures_of() as found:
        text = report.curves(history)
    ((figure, options),) = found
    check("training_curves", figure, options)
    assert text.startswith('<figure role="img" aria-label="Training curves: loss, R@1"><svg')


def test_neighbors_are_drawn_with_frames_and_names(tmp_path):
    queries = np.full((2, 4, 4, 3), 90, np.uint8)
    found = np.full((2, 2, 4, 4, 3), 200, np.uint8)
    names, right = [["a", "b"], ["c", "5 $ and 6 $"]], np.array([[True, False], [False, True]])
    drawn = neighbors.Neighbors(queries, found, np.array([[0.9, 0.5], [0.25, 0.125]]), ["q", "r"], names, right)
    with figures_of() as saved:
        drawn.save_png(tmp_path / "a.png", 32)
        neighbors.Neighbors(queries, found, drawn.scores, ["q", "r"], names).save_png(tmp_path / "b.png", 32)
    for name, (figure, options) in zip(("neighbors", "neighbors_unknown"), saved, strict=True):
        check(name, figure, options)

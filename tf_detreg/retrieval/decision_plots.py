"""Plots of error rates and scores. Matplotlib is imported when one is drawn, and no window is opened."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import extras
from tf_detreg.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tf_detreg.retrieval.decision import Decision
    from tf_detreg.retrieval.verification import VerificationReport

_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)


def det(report: "VerificationReport", path: str | os.PathLike[str] | None = None) -> "Figure":
    """Draw the false-reject rate against the false-accept rate on normal-deviate axes."""
    with extras.needed("A plot"):
        from scipy.stats import norm

    figure, axes = _figure()
    if report.curve is None:
        raise ValueError("`report` holds no curve: make it with `retrieval.verification`.")
    far, tar = report.curve.far, report.curve.tar
    inside = (far > 0) & (far < 1) & (tar > 0) & (tar < 1)
    axes.plot(norm.ppf(far[inside]), norm.ppf(1 - tar[inside]))
    at = [norm.ppf(report.eer)] if 0 < report.eer < 1 else []
    axes.plot(at, at, "o", label=f"EER {100 * report.eer:.2f} %")
    ticks = [tick for tick in _TICKS if tick * report.impostor >= 1]
    axes.set_xticks(norm.ppf(ticks), [f"{100 * tick:g}" for tick in ticks])
    axes.set_yticks(norm.ppf(ticks), [f"{100 * tick:g}" for tick in ticks])
    axes.set(xlabel="false accepts, % of pairs of two classes", ylabel="false rejects, % of pairs of one class")
    axes.grid(alpha=0.3)
    axes.legend()
    return _saved(figure, path)


def histograms(
    scores: Mapping[str, np.ndarray], lines: Mapping[str, float], path: str | os.PathLike[str] | None = None
) -> "Figure":
    """Draw a histogram of each set of scores, each of area one, and vertical lines.

    Args:
        scores: Label to the scores.
        lines: Label to where to draw a line, such as a threshold.
        path: The file to write. Default None: none.
    """
    figure, axes = _figure()
    known = np.concatenate(list(scores.values()))
    edges = np.linspace(known.min(), known.max() + 1e-9, 81)
    for label, values in scores.items():
        axes.hist(values, edges, density=True, alpha=0.5, label=f"{label} ({len(values):,})")
    for label, at in lines.items():
        axes.axvline(at, color="black", linestyle="--", label=label)
    axes.set(xlabel="score", ylabel="density")
    axes.legend()
    return _saved(figure, path)


def reliability(decision: "Decision", path: str | os.PathLike[str] | None = None) -> "Figure":
    """Draw the share of right matches against the probability that was stated."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    for label, found in (("fitted on", decision.fitted), ("other classes", decision.test)):
        if found is not None:
            expected, observed, _ = zip(*found.reliability, strict=True)
            axes.plot(expected, observed, "o-", label=f"{label}: error {100 * found.calibration_error:.1f} points")
    axes.set(xlabel="stated probability", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    return _saved(figure, path)


def _figure() -> "tuple[Figure, Any]":
    with extras.needed("A plot"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    return figure, figure.add_subplot()


def _saved(figure: "Figure", path: str | os.PathLike[str] | None) -> "Figure":
    if path is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary)
    return figure

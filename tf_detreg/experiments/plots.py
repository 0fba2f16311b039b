"""Pictures of a study, as SVG text."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import extras
from tf_detreg.analysis.report import svg_text
from tf_detreg.experiments import curves
from tf_detreg.experiments.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INTERVALS = "(95 %: thin t, thick bootstrap)"


def overview(studies: list[tuple[Study, list[dict[str, Any]]]]) -> str:
    """Return the differences of several studies, a panel each, as tall as its rows are many.

    Args:
        studies: Each study with what `table.compare` makes of it.
    """
    rows = [len(compared) for _, compared in studies]
    figure = _figure(0.8 * len(rows) + 0.2 * sum(rows))
    panels = figure.subplots(len(rows), 1, sharex=True, gridspec_kw={"height_ratios": [n + 0.5 for n in rows]})
    for axes, (study, compared) in zip(np.atleast_1d(panels), studies, strict=True):
        _draw(axes, study, compared)
        axes.set_title(study.title, fontsize=9, loc="left")
        axes.set_xlabel("")
    axes.set_xlabel("R@1 on unseen classes, points above the baseline (diamond)\n" + INTERVALS)
    return svg_text(figure)


def differences(study: Study, compared: list[dict[str, Any]]) -> str:
    """Draw every candidate's difference to its baseline with intervals; without a baseline, its mean and spread."""
    figure = _figure(1.2 + 0.3 * len(compared))
    _draw(figure.subplots(), study, compared)
    return svg_text(figure)


def _draw(axes: "Axes", study: Study, compared: list[dict[str, Any]]) -> None:
    reference = any(entry["is_baseline"] for entry in compared)
    for row, entry in enumerate(compared):
        found = entry["difference"] if reference else entry["metrics"][study.protocol["metric"]]
        if entry["is_baseline"]:
            axes.plot(0, row, "D", color="#444444", ms=5)
        elif found is None:
            continue
        elif found.count > 1:
            for ends, width, color in ((found.bootstrap, 5, "#9ecae1"), (found.t, 1.6, "#08519c")):
                axes.plot(ends, (row, row), color=color, lw=width, solid_capstyle="butt")
            axes.plot(found.mean, row, "o", color="#08519c", ms=5)
        else:
            axes.plot(found.mean, row, "o", color="#bbbbbb", ms=5)
    if reference:
        axes.axvline(0, color="#444444", lw=0.8, ls=":")
    axes.set_yticks(range(len(compared)), [entry["name"] for entry in compared], fontsize=8)
    axes.invert_yaxis()
    _plain(axes)
    what = f"{study.protocol['metric']} on unseen classes"
    axes.set_xlabel(f"{what}{', points above the baseline' if reference else ''}\n{INTERVALS}")


def curve(study: Study, compared: "curves.Compared") -> str:
    """Return what is compared over the points of a curve, with the standard deviation.

    Args:
        study: The curve.
        compared: What `curves.compare` makes of its table.
    """
    figure = _figure(4.5)
    axes = figure.subplots()
    _plain(axes)
    metric = study.protocol["metric"]
    for name in curves.names(compared):
        there = {value: entries[name]["metrics"][metric] for value, entries in compared.items() if name in entries}
        spread = [found.deviation if found.count > 1 else 0.0 for found in there.values()]
        axes.errorbar(
            list(there), [found.mean for found in there.values()], yerr=spread, fmt="o-", ms=4, capsize=2, label=name
        )
    axes.set_xscale("log")
    axes.set_xticks(list(compared), list(map(str, compared)))
    axes.minorticks_off()
    axes.set_xlabel(study.axis.replace("_", " "))
    axes.set_ylabel(f"{metric} on unseen classes")
    axes.legend(fontsize=8, frameon=False)
    return svg_text(figure)


def cost(study: Study, compared: list[dict[str, Any]]) -> str:
    """Return what a candidate's training costs against what it reaches."""
    figure = _figure(3.6)
    axes = figure.subplots()
    _plain(axes)
    for entry in compared:
        x, y = entry["metrics"]["seconds"], entry["metrics"][study.protocol["metric"]]
        axes.errorbar(x.mean, y.mean, yerr=y.deviation if y.count > 1 else None, fmt="o", ms=4, color="#08519c")
        axes.annotate(entry["name"], (x.mean, y.mean), fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set_xlabel("training, seconds on one thread")
    axes.set_ylabel(study.protocol["metric"])
    return svg_text(figure)


def _figure(height: float) -> "Figure":
    with extras.needed("A plot of a study"):
        import matplotlib
        from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "tf_detreg"
    return Figure(figsize=(8, height), layout="constrained")


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#eeeeee")

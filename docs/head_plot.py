"""Draws `docs/pictures/which_head.svg`, heads against numbers of training classes, from the tables of two studies.

    python docs/head_plot.py

A line is the mean difference of a head to the linear head on test classes, in pairs of one class split and seed; a bar
is its 95 % t interval.
"""

import pathlib

from tf_detreg.experiments import curves, study, table
from tf_detreg.experiments.statistics import Interval, paired

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "which_head.svg"
# Each head's points stand a little beside the number of classes, so that no bar hides another.
SHIFTS = (0.89, 0.945, 1.0, 1.055, 1.11)
# The study, the metric and the title of each panel.
PANELS = (
    ("emoji-classes", "recall@1", "emoji: R@1"),
    ("emoji-classes", "cross_recall@1", "emoji: R@1 across drawing styles"),
    ("glyphs-classes", "recall@1", "drawn characters: R@1"),
)
HEADS = {
    "residual MLP": ("residual MLP (2 × the linear head's time a step)", "#e08214"),
    "RealNVP, isometric": ("flow kept near an isometry (3 ×)", "#3457b2"),
    "RealNVP, no penalty": ("flow without a penalty (3 ×)", "#7f7f7f"),
    "RealNVP, the paper's penalty": ("flow with the paper's penalty (3 ×)", "#b2182b"),
    "dueling, the rival with a metric loss": ("the same, dueling", "#762a83"),
}


def differences(name: str, metric: str) -> dict[str, dict[int, tuple[float, Interval]]]:
    """The linear head's mean and a head's difference to it, by head and number of training classes."""
    found = study.read(ROOT / "studies" / f"{name}.toml")
    compared = curves.compare(found, table.read(ROOT / "studies" / "results" / f"{name}.csv", found))
    result: dict[str, dict[int, tuple[float, Interval]]] = {}
    for classes, entries in compared.items():
        mean = entries["linear"]["metrics"][metric].mean
        for head in HEADS:
            if head in entries:
                pair = (table.values(entries[one]["rows"], metric) for one in (head, "linear"))
                result.setdefault(head, {})[classes] = mean, paired(*pair)
    return result


def draw(picture: pathlib.Path = PICTURE) -> None:
    """Write the plot."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text: small, and the tests read it.
    matplotlib.rcParams |= {"svg.hashsalt": "tf_detreg", "font.size": 10, "svg.fonttype": "none"}
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 4.1), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (name, metric, title) in zip(panels, PANELS, strict=True):
        heads = differences(name, metric)
        axes.axhline(0, color="#444444", linewidth=1, linestyle=":")
        for shift, (head, (text, color)) in zip(SHIFTS, HEADS.items(), strict=True):
            if head not in heads:
                continue
            x, means = [classes * shift for classes in heads[head]], [one.mean for _, one in heads[head].values()]
            bars = [one.t[1] - one.mean for _, one in heads[head].values()]
            axes.errorbar(x, means, yerr=bars, fmt="o-", color=color, capsize=3, markersize=5, label=text)
        linear = {classes: mean for classes, (mean, _) in next(iter(heads.values())).items()}
        axes.set_xscale("log")
        axes.set_xticks(list(linear), [f"{classes}\n{mean:.1f} %" for classes, mean in linear.items()], fontsize=8)
        axes.minorticks_off()
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("training classes, and the linear head's R@1 there")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    panels[0].set_ylabel("points above the linear head")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    draw()
    for name, metric, _ in PANELS:
        for head, points in differences(name, metric).items():
            for classes, (mean, one) in points.items():
                low, high = one.t
                gap = f"{one.mean:+.2f} [{low:+.2f}, {high:+.2f}]"
                print(f"{name}, {metric}, {classes} classes: linear {mean:.2f}; {head} {gap}, {one.count} pairs")


if __name__ == "__main__":
    main()

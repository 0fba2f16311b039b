"""Draws `docs/pictures/what_matters.svg`, the results plot of the README, from the tables in studies/results.

    python docs/results_plot.py

Every bar is the mean R@1 of a family's trials (class splits, and seeds where there are several), every dot one trial.
`STUDIES` says which rows are drawn; a study whose table is not there is left out.
"""

import csv
import dataclasses
import json
import pathlib
import statistics

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "results"
PICTURE = ROOT / "docs" / "pictures" / "what_matters.svg"
PLAIN, STRONG = "#9aa9d6", "#3457b2"


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of the plot: a family of a study, at one backbone rate where it was tried at several."""

    text: str
    family: str
    rate: float | None = None
    strong: bool = False


STUDIES = {
    "emoji-finetune": (
        "Unseen emoji (48 px), EfficientNet-Lite0 with ImageNet weights",
        [
            Bar("backbone frozen, linear head", "linear, backbone frozen"),
            Bar("fine-tuned at 1e-4, linear head", "linear", 1e-4),
            Bar("fine-tuned at 3e-4, linear head", "linear", 3e-4, strong=True),
            Bar("… residual MLP", "residual MLP", 3e-4),
            Bar("… flow without penalty", "RealNVP, no penalty", 3e-4),
            Bar("… flow kept near an isometry", "RealNVP, isometric", 3e-4),
        ],
    ),
    "emoji-fine-tuning": (
        "Ways to fine-tune, with two fifths of the training classes",
        [
            Bar("backbone frozen", "frozen, linear"),
            Bar("all at once", "all at once"),
            Bar("head first, then all", "head first"),
            Bar("… with layer-wise decay", "layer decay"),
            Bar("… average over steps (EMA)", "EMA"),
            Bar("… average of epochs (soup)", "soup"),
        ],
    ),
}


def recalls(study: str, bar: Bar, results: pathlib.Path = RESULTS) -> list[float]:
    """The R@1 of each trial of a bar, in percent, on the stage that the study has for it."""
    found = []
    with open(results / f"{study}.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rate = json.loads(row["recipe"]).get("rates", {}).get("backbone_rate")
            if row["family"] == bar.family and bar.rate in (None, rate):
                found.append(float(row["metric.recall@1"]))
    return found


def drawn(results: pathlib.Path = RESULTS) -> dict[str, list[tuple[Bar, list[float]]]]:
    """The bars of each study that has a table, without families that were not run."""
    there = {study: bars for study, (_, bars) in STUDIES.items() if (results / f"{study}.csv").is_file()}
    rows = {study: [(bar, recalls(study, bar, results)) for bar in bars] for study, bars in there.items()}
    return {study: [row for row in found if row[1]] for study, found in rows.items() if any(row[1] for row in found)}


def draw(results: pathlib.Path = RESULTS, picture: pathlib.Path = PICTURE) -> None:
    """Write the plot."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text: small, and the tests read it.
    matplotlib.rcParams |= {"svg.hashsalt": "tf_detreg", "font.size": 10, "svg.fonttype": "none"}
    from matplotlib.figure import Figure

    studies = drawn(results)
    heights = [len(rows) for rows in studies.values()]
    figure = Figure(figsize=(7.2, 0.8 * len(studies) + 0.34 * sum(heights)), layout="constrained", facecolor="white")
    panels = figure.subplots(len(studies), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    for axes, (study, rows) in zip(panels, studies.items(), strict=True):
        for place, (bar, values) in enumerate(rows):
            mean = statistics.mean(values)
            axes.barh(place, mean, height=0.66, color=STRONG if bar.strong else PLAIN)
            axes.plot(values, [place] * len(values), ".", color="#1c2430", markersize=4)
            axes.text(max(values) + 1.2, place, f"{mean:.1f}", va="center", weight="bold" if bar.strong else "normal")
        axes.set_yticks(range(len(rows)), [bar.text for bar, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_title(STUDIES[study][0], fontsize=10, loc="left", x=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("R@1 in % (bar: mean; dots: class splits and seeds)")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    draw()
    for study, rows in drawn().items():
        for bar, values in rows:
            print(f"{study}: {bar.text}: {statistics.mean(values):.1f}")


if __name__ == "__main__":
    main()

"""The numbers that conclusions.md and the README quote beyond the tables, from the studies' results alone.

Run: python studies/conclusions.py
"""

import csv
import itertools
import json
import pathlib
from collections import defaultdict

import numpy as np
from scipy import stats

RESULTS = pathlib.Path(__file__).parent / "results"
FROZEN = ("emoji-heads", "glyphs-heads")
# Each a curve, and what its points count.
CURVES = {
    "emoji-classes": "training classes",
    "glyphs-classes": "training classes",
    "emoji-images": "images a class at most (0: all)",
}
TESTED = ("emoji-heads-rates", "glyphs-heads-rates", "emoji-end-to-end", "glyphs-end-to-end", "glyphs-clipped")
# What, the study, and the trials before and after: a family, and settings of its recipe by dotted names.
GAINS = (
    (
        "tuning the backbone, three quarters of the classes",
        "emoji-finetune",
        ("linear, backbone frozen", {}),
        ("linear", {"rates.backbone_rate": 3e-4}),
    ),
    (
        "tuning the backbone, two fifths of the classes",
        "emoji-fine-tuning",
        ("frozen, linear", {}),
        ("all at once", {}),
    ),
    (
        "freezing its batch normalization",
        "emoji-finetune",
        ("linear, batch normalization learns", {}),
        ("linear", {"rates.backbone_rate": 3e-4}),
    ),
    (
        "the backbone's rate",
        "emoji-finetune",
        ("linear", {"rates.backbone_rate": 1e-4}),
        ("linear", {"rates.backbone_rate": 3e-4}),
    ),
    (
        "temperature of normalized softmax",
        "emoji-sensitivity",
        ("normalized softmax", {"loss.temperature": 0.025}),
        ("normalized softmax", {"loss.temperature": 0.1}),
    ),
)


def rows(study: str, stage: str) -> list[dict]:
    """A study's trials on "validation" or "test" classes."""
    with open(RESULTS / f"{study}.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["stage"] == stage]


def setting(row: dict) -> tuple:
    """What two families share in a pair: the two dropouts, split and seed."""
    head = json.loads(row["recipe"])["head"]
    return head.get("dropout", 0.0), head.get("conditioner_dropout", 0.0), row["split"], row["seed"]


def pair(table: dict, first: str, second: str) -> str:
    """Mean difference of R@1 in points over the settings that both families have, with its 95 % t interval."""
    both = sorted(table[first].keys() & table[second].keys())
    gaps = np.array([table[first][key] - table[second][key] for key in both])
    low, high = stats.t.interval(0.95, len(gaps) - 1, gaps.mean(), stats.sem(gaps))
    return f"{first} - {second}: {gaps.mean():+.2f} [{low:+.2f}, {high:+.2f}], {len(gaps)} pairs"


def conclude(study: str) -> None:
    """Print a study's differences between families at the same settings, and what R@1 follows.

    The trials are those on validation classes.
    """
    table, recipes = defaultdict(dict), defaultdict(list)
    for row in rows(study, "validation"):
        table[row["family"]][setting(row)] = float(row["metric.recall@1"])
        if row["family"].startswith("RealNVP"):
            numbers = [float(row[f"metric.{name}"]) for name in ("recall@1", "spectral", "frobenius")]
            recipes[row["family"], *setting(row)[:2]].append(numbers)
    print(f"{study}: R@1 on validation classes at the same dropouts, split and seed")
    for first, second in itertools.permutations(table, 2):
        if table[first].keys() & table[second].keys():
            print("  " + pair(table, first, second))
    recall, spectral, frobenius = np.array([np.mean(values, axis=0) for values in recipes.values()]).T
    print(f"  {len(recipes)} recipes of flows, means over splits; correlation of R@1 with")
    print(f"  spectral / Frobenius norm: {np.corrcoef(recall, spectral / frobenius)[0, 1]:+.2f}")
    print(f"  the spectral norm:         {np.corrcoef(recall, spectral)[0, 1]:+.2f}")


def compare(study: str) -> None:
    """Print a study's differences between families as tested, each with the settings that it chose."""
    table = defaultdict(dict)
    for row in rows(study, "test"):
        table[row["family"]][row["split"], row["seed"]] = float(row["metric.recall@1"])
    print(f"{study}: R@1 on test classes at the same split and seed")
    for first, second in itertools.permutations(table, 2):
        print("  " + pair(table, first, second))


def curve(study: str, counted: str) -> None:
    """Print a curve's means on test and train classes, and each family's differences to the linear head."""
    points = defaultdict(lambda: defaultdict(dict))
    for row in rows(study, "test"):
        points[int(row["study"].rsplit("-", 1)[1])][row["family"]][row["split"], row["seed"]] = row
    print(f"{study}: test classes, by {counted}")
    for point, table in sorted(points.items()):
        recall = {family: {key: float(row["metric.recall@1"]) for key, row in t.items()} for family, t in table.items()}
        for family, tests in table.items():
            names = ("recall@1", "cross_recall@1", "train_recall@1")
            means = (np.mean([float(row[f"metric.{name}"]) for row in tests.values()]) for name in names)
            print(
                f"  {point}, {family}: R@1 {{:.2f}}, across styles {{:.2f}}, of train classes {{:.0f}}".format(*means)
            )
            if family != "linear":
                above = sum(value > recall["linear"][key] for key, value in recall[family].items())
                print(f"    {pair(recall, family, 'linear')}, {above} of them above 0")


def mean(study: str, family: str, settings: dict) -> float:
    """Mean R@1 on validation classes of the trials of a family that have these settings."""

    def value(recipe: dict, name: str) -> object:
        for part in name.split("."):
            recipe = recipe[part]
        return recipe

    found = []
    for row in rows(study, "validation"):
        recipe = json.loads(row["recipe"])
        if row["family"] == family and all(value(recipe, name) == wanted for name, wanted in settings.items()):
            found.append(float(row["metric.recall@1"]))
    return float(np.mean(found))


def gains() -> None:
    """Print what each step of the practitioner's list gave."""
    print("R@1 on validation classes, before and after")
    for what, study, before, after in GAINS:
        first, last = mean(study, *before), mean(study, *after)
        print(f"  {what} ({study}): {first:.2f} -> {last:.2f}, {last - first:+.2f}")


def main() -> None:
    gains()
    for study in FROZEN:
        conclude(study)
    for study in TESTED:
        compare(study)
    for study, counted in CURVES.items():
        curve(study, counted)


if __name__ == "__main__":
    main()

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
TESTED = ("emoji-heads-rates", "glyphs-heads-rates", "emoji-end-to-end", "glyphs-end-to-end", "glyphs-clipped")


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


def main() -> None:
    for study in FROZEN:
        conclude(study)
    for study in TESTED:
        compare(study)


if __name__ == "__main__":
    main()

"""The numbers that conclusions.md and the README quote beyond the tables, from the two main studies' results alone.

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
STUDIES = ("emoji-heads", "glyphs-heads")


def rows(study: str) -> list[dict]:
    """A study's trials on validation classes."""
    with open(RESULTS / f"{study}.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["stage"] != "test"]


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
    """Print a study's differences between families at the same settings, and what R@1 follows."""
    table, recipes = defaultdict(dict), defaultdict(list)
    for row in rows(study):
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


def main() -> None:
    for study in STUDIES:
        conclude(study)


if __name__ == "__main__":
    main()

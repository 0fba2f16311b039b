"""The tidy table of a study: one row a trial, as CSV, and what is computed from it."""

import csv
import io
import json
import os
import pathlib
import statistics
from collections.abc import Iterable
from typing import Any

from tf_detreg import files
from tf_detreg.experiments import old_tables
from tf_detreg.experiments.statistics import Interval, interval, paired
from tf_detreg.experiments.study import Study, flat, recipe_of, signature

# What stands in a label for a setting that one candidate has and another leaves out.
_OFF = {"interpolation.epsilon": 0.0}
FIXED = ("study", "stage", "family", "recipe_hash", "split", "seed")


def tidy(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records of trials as flat rows: identity, recipe, metrics, versions."""
    result = []
    for row in rows:
        line = {name: row[name] for name in FIXED}
        line["recipe"] = json.dumps(recipe_of(row["config"]), sort_keys=True)
        line |= {f"metric.{name}": round(value, 5) for name, value in row["metrics"].items()}
        line |= {f"version.{name}": value for name, value in row["versions"].items()}
        result.append(line | {"machine": row["machine"], "finished": row["finished"]})
    return sorted(result, key=lambda r: (r["stage"], r["family"], r["recipe_hash"], r["split"], r["seed"]))


def write(rows: Iterable[dict[str, Any]], path: os.PathLike[str]) -> pathlib.Path:
    """Write tidy rows as CSV, atomically. Columns are the union over all rows."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return files.write_text(path, text.getvalue())


def read(path: os.PathLike[str], study: Study | None = None) -> list[dict[str, Any]]:
    """Read what `write` wrote: numbers as numbers, the recipe as a dict.

    Args:
        path: The table.
        study: Its study, which the recipes of tables of version 0.1 need to be understood. Default: none, and they
            stay as they are.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row["split"], row["seed"], row["recipe"] = int(row["split"]), int(row["seed"]), json.loads(row["recipe"])
        if study is not None and old_tables.is_old(row["recipe"]):
            row["recipe"] = old_tables.upgrade(row["recipe"], study.base)
        row |= {k: float(v) for k, v in row.items() if k.startswith("metric.") and v != ""}
    return rows


def values(rows: Iterable[dict[str, Any]], metric: str) -> dict[tuple[int, int], float]:
    """Return a metric by (split, seed)."""
    return {
        (r["split"], r["seed"]): r[f"metric.{metric}"] for r in rows if isinstance(r.get(f"metric.{metric}"), float)
    }


def groups(study: Study, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what a study's table compares: the candidates by label, or for a choice the families' test trials."""
    if study.kind == "choice":
        return {f: [r for r in rows if r["family"] == f and r["stage"] == "test"] for f in study.families}
    result: dict[str, list[dict[str, Any]]] = {}
    for family, recipes in study.families.items():
        names = _labels(family, recipes)
        for row in rows:
            if row["family"] == family:
                result.setdefault(names[signature(row["recipe"])], []).append(row)
    return {name: result[name] for name in labels(study) if name in result}


def baseline(study: Study, groups_: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]]) -> str | None:
    """Return the baseline for comparisons: of the named families, the one best on validation classes."""
    metric = study.protocol["metric"]
    names = [n for n in groups_ if groups_[n] and groups_[n][0]["family"] in study.baselines]
    if not names:
        return None

    def score(name: str) -> float:
        family = groups_[name][0]["family"]
        if study.kind != "choice":
            return statistics.fmean(values(groups_[name], metric).values())
        by_recipe: dict[tuple[int, str], list[float]] = {}
        for row in rows:
            if row["family"] == family and row["stage"] == "validation":
                by_recipe.setdefault((row["split"], row["recipe_hash"]), []).append(row[f"metric.{metric}"])
        means = {key: statistics.fmean(found) for key, found in by_recipe.items()}
        splits = {split for split, _ in means}
        return statistics.fmean(max(m for (s, _), m in means.items() if s == split) for split in splits)

    return max(names, key=score)


def compare(study: Study, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for each thing compared: its intervals per metric, and its difference to the baseline.

    Without `baselines`, each candidate is compared with the first candidate of its own family.

    Returns:
        Dicts with `name`, `rows`, `metrics` (name → `Interval`), `difference` (`Interval` or None), `is_baseline`.
    """
    compared = groups(study, rows)
    firsts = {} if study.baselines else _firsts(study, compared)
    overall = baseline(study, compared, rows)
    metric = study.protocol["metric"]
    names = sorted({k[7:] for row in rows for k in row if k.startswith("metric.")})
    result = []
    for name, mine in compared.items():
        if not mine:
            continue
        metrics = {m: interval(found) for m in names if (found := values(mine, m))}
        difference = None
        reference = firsts.get(mine[0]["family"], overall)
        if reference and name != reference:
            difference = paired(values(mine, metric), values(compared[reference], metric))
        result.append(
            {
                "name": name,
                "rows": mine,
                "metrics": metrics,
                "difference": difference,
                "is_baseline": name == reference,
            }
        )
    return result


def _firsts(study: Study, compared: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return the name of the first candidate of each family that has several, but for a choice."""
    if study.kind == "choice":
        return {}
    names: dict[str, list[str]] = {}
    for name, mine in compared.items():
        names.setdefault(mine[0]["family"], []).append(name)
    return {family: found[0] for family, found in names.items() if len(found) > 1}


def contrast(study: Study, rows: list[dict[str, Any]], one: str, other: str, metric: str) -> Interval:
    """Return one family minus another, candidate by candidate of their grids; but for a table, on validation classes.

    The n-th candidate of one is paired with the n-th of the other in the same split and seed, so the families' grids
    must be the same.
    """
    found = []
    for family in (one, other):
        number = {signature(r): n for n, r in enumerate(study.families[family])}
        mine = [r for r in rows if r["family"] == family and (r["stage"] == "validation") != (study.kind == "table")]
        found.append({(r["split"], (r["seed"], number[signature(r["recipe"])])): r[f"metric.{metric}"] for r in mine})
    first, second = found
    return paired(first, second)


def show(found: Interval | None, digits: int = 2) -> str:
    """Return `mean ± deviation` for tables."""
    if found is None:
        return ""
    spread = f" ± {found.deviation:.{digits}f}" if found.count > 1 else ""
    return f"{found.mean:.{digits}f}{spread}"


def show_difference(found: Interval | None) -> str:
    """Return `+mean [low, high]`, by t and by bootstrap."""
    if found is None:
        return "baseline"
    if found.count == 1:
        return f"{found.mean:+.2f} (one pair)"
    (a, b), (c, d) = found.t, found.bootstrap
    return f"{found.mean:+.2f} [{a:+.2f}, {b:+.2f}] / [{c:+.2f}, {d:+.2f}]"


def labels(study: Study) -> list[str]:
    """Return the labels of all candidates, in the file's order."""
    return [name for family, recipes in study.families.items() for name in _labels(family, recipes).values()]


def _labels(family: str, recipes: tuple[dict[str, Any], ...]) -> dict[str, str]:
    """Return a short name for each recipe of a family: the family, and the settings in which its recipes differ."""
    levels = [flat(recipe_of(recipe)) for recipe in recipes]
    names = sorted({name for level in levels for name in level})
    differing = [n for n in names if len({json.dumps(level.get(n), sort_keys=True) for level in levels}) > 1]
    result = {}
    for recipe, level in zip(recipes, levels, strict=True):
        settings = ", ".join(f"{_short(n)} {_value(level.get(n, _OFF.get(n, '–')))}" for n in differing)
        result[signature(recipe)] = f"{family}: {settings}" if settings else family
    return result


def _short(name: str) -> str:
    return name.removeprefix("head.").removeprefix("optimizer.").removesuffix(".epsilon").replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(entry) for entry in value) or "none"
    return f"{value['name']} {value.get('weight', '')}".strip() if isinstance(value, dict) else str(value)

"""A curve: one study at several sizes, such as numbers of training classes, as tables and as a picture."""

import functools
from collections.abc import Callable
from typing import Any

from tf_detreg.experiments import table
from tf_detreg.experiments.grids import Grid
from tf_detreg.experiments.study import Study

# R@1 across groups is shown beside the metric of the study, where it was measured.
ACROSS = "cross_recall@1"
NOTE = "Mean ± standard deviation over splits × seeds, in percent."

Compared = dict[Any, dict[str, dict[str, Any]]]


def at_points(study: Study, rows: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    """Return the rows of each point of a curve."""
    return {value: [row for row in rows if row["study"] == point.name] for value, point in study.points.items()}


def compare(study: Study, rows: list[dict[str, Any]]) -> Compared:
    """Return what `table.compare` says at each point, by the name of what is compared."""
    parts = at_points(study, rows)
    return {
        value: {entry["name"]: entry for entry in table.compare(point, parts[value])}
        for value, point in study.points.items()
    }


def grids(study: Study, compared: Compared) -> list[Grid]:
    """Return a table of each metric, of the differences to the baseline and of the costs: a column for each point."""
    main = study.protocol["metric"]
    metrics = [m for m in dict.fromkeys((main, ACROSS)) if any(m in e["metrics"] for e in _entries(compared))]
    found = [_grid(study, compared, metric, functools.partial(_metric, metric=metric), NOTE) for metric in metrics]
    if any(entry["difference"] for entry in _entries(compared)):
        note = f"The baseline of a point is the best of {', '.join(study.baselines)} there, on validation classes."
        found.append(_grid(study, compared, f"Δ {main} [t] / [bootstrap]", _difference, note))
    return [*found, _grid(study, compared, "training s", lambda entry: f"{entry['metrics']['seconds'].mean:.0f}", "")]


def _grid(study: Study, compared: Compared, what: str, cell: Callable[[dict[str, Any]], str], note: str) -> Grid:
    head = [f"{what} at `{study.axis}`", *map(str, compared)]
    rows = [
        [name, *(cell(entries[name]) if name in entries else "" for entries in compared.values())]
        for name in names(compared)
    ]
    return Grid(what, head, rows, note=note)


def names(compared: Compared) -> list[str]:
    """Return what is compared at any point."""
    return list(dict.fromkeys(name for entries in compared.values() for name in entries))


def _entries(compared: Compared) -> list[dict[str, Any]]:
    return [entry for entries in compared.values() for entry in entries.values()]


def _metric(entry: dict[str, Any], metric: str) -> str:
    return table.show(entry["metrics"].get(metric))


def _difference(entry: dict[str, Any]) -> str:
    return table.show_difference(entry["difference"]) if entry["is_baseline"] or entry["difference"] else ""

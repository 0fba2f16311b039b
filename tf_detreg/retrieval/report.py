"""What an evaluation found, as a dataclass, as JSON, as Markdown and as a table for terminals."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg import deprecated, extras

if TYPE_CHECKING:
    import rich.console

_LABELS = {"mrr": "MRR", "r_precision": "R-precision", "map@r": "MAP@R", "map": "MAP"}
_LABELS |= {"nmi": "NMI", "ami": "AMI", "f1": "F1"}


def named(engine: str) -> str:
    """Return an engine's name as people write it.

    Example:
        >>> named("scann"), named("usearch")
        ('ScaNN', 'usearch')
    """
    return {"scann": "ScaNN"}.get(engine, engine)


def label(metric: str) -> str:
    """Return how a metric is written for people.

    Example:
        >>> label("recall@10"), label("map@r")
        ('R@10', 'MAP@R')
    """
    return _LABELS.get(metric) or metric.replace("recall@", "R@").replace("precision@", "P@")


@dataclasses.dataclass(frozen=True)
class Approximation:
    """How far an approximate search was off, measured against exact search on queries it was not tuned on.

    Args:
        recall: Share of the true nearest neighbors that were found, at rank `at`.
        interval: 95 % interval of `recall`.
        at: The rank.
        target: What was asked for.
        sample: How many queries were compared.
        metric_error: For each metric, (approximate - exact) on the sample, and its 95 % interval: (error, low, high).
        settings: Leaves, leaves visited, candidates rescored, …
        build_seconds: Building and tuning.
    """

    recall: float
    interval: tuple[float, float]
    at: int
    target: float
    sample: int
    metric_error: Mapping[str, tuple[float, float, float]]
    settings: Mapping[str, object]
    build_seconds: float


@dataclasses.dataclass(frozen=True)
class RetrievalReport:
    """Result of `retrieval.evaluate`.

    Args:
        metrics: Name to value, between 0 and 1: `recall@1`, `precision@1`, `r_precision`, `map@r`, `map`, `mrr`, and
            `nmi`, `ami`, `f1` when clustering was asked for.
        intervals: Name to its bootstrap interval over classes.
        per_class: Class to its metrics and `queries`.
        per_group: Group to its metrics and `queries`; empty without groups.
        engine: `"exact"`, `"scann"` or `"usearch"`.
        protocol: `"leave-one-out"`, `"query-gallery"` or `"cross-group"`.
        queries: Number of queries.
        queries_without_positives: Queries without any relevant item in their gallery; left out of every average.
        gallery: Number of items.
        classes: Number of classes among the queries.
        dimension: Of the embeddings.
        seconds: Wall time.
        approximation: How far an approximate engine was off; None for exact search.
        notes: What a reader should know: vectors that were normalized, an engine that was replaced, …
        per_query: Name to one value a query; NaN for queries without positives. Holds `first_rank` and `relevant`
            too. Not written to JSON.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_class: Mapping[str, Mapping[str, float]]
    per_group: Mapping[str, Mapping[str, float]]
    engine: str
    protocol: str
    queries: int
    queries_without_positives: int
    gallery: int
    classes: int
    dimension: int
    seconds: float
    approximation: Approximation | None = None
    notes: tuple[str, ...] = ()
    per_query: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    lone_queries = deprecated.RenamedAttribute("queries_without_positives")
    as_dict = deprecated.RenamedAttribute("to_dict")

    @property
    def recall(self) -> dict[int, float]:
        """Return R@k by k."""
        return self._by_k("recall@")

    @property
    def precision(self) -> dict[int, float]:
        """Return Precision@k by k."""
        return self._by_k("precision@")

    @property
    def map_at_r(self) -> float:
        """Return MAP@R; NaN when it was not computed."""
        return self.metrics.get("map@r", math.nan)

    def _by_k(self, prefix: str) -> dict[int, float]:
        return {
            int(name.removeprefix(prefix)): value for name, value in self.metrics.items() if name.startswith(prefix)
        }

    def to_dict(self) -> dict[str, object]:
        """Return plain dictionaries, lists, numbers and strings; numbers that are not known become None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["per_query"]
        if self.approximation:
            fields["approximation"] = dataclasses.asdict(self.approximation)
        result: dict[str, object] = _plain(fields)
        return result

    def to_json(self) -> str:
        """Return JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def rows(self) -> list[dict[str, str]]:
        """Return one row a metric: its name, its value in percent, its interval."""
        rows = []
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (math.nan, math.nan))
            interval = "" if math.isnan(low) else f"{100 * low:.2f} – {100 * high:.2f}"
            rows.append({"metric": label(name), "%": _percent(value), "95 % interval": interval})
        return rows

    def summary(self) -> str:
        """Return a sentence: what was searched, how, and how sure the numbers are."""
        text = f"{self.queries:,} queries of {self.classes:,} classes, {self.gallery:,} items, {self.protocol}, "
        text += f"{self.engine} search, {self.seconds:.1f} s."
        if self.queries_without_positives:
            text += (
                f" {self.queries_without_positives:,} queries have no relevant item in their gallery and are left out."
            )
        if self.approximation:
            near = self.approximation
            text += f" {named(self.engine)} found {100 * near.recall:.2f} % of the true {near.at} nearest neighbors "
            text += f"({100 * near.interval[0]:.2f} – {100 * near.interval[1]:.2f} %, {near.sample:,} sampled queries)"
            error, low, high = next(iter(near.metric_error.values()), (math.nan,) * 3)
            if not math.isnan(error):
                name = label(next(iter(near.metric_error)))
                text += f"; this moves {name} by {100 * error:+.2f} points ({100 * low:+.2f} – {100 * high:+.2f})"
            text += "."
        return text

    def to_markdown(self) -> str:
        """Return a Markdown table with a sentence and the notes under it."""
        lines = ["| metric | % | 95 % interval |", "|---|---:|---:|"]
        lines += [f"| {row['metric']} | {row['%']} | {row['95 % interval']} |" for row in self.rows()]
        lines += ["", self.summary(), *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def to_table(self) -> "rich.console.Group":
        """Return a table with the sentence and the notes under it, for `rich.print`."""
        with extras.needed("Printing a table"):
            from rich.console import Group
            from rich.markup import escape
            from rich.table import Table

        table = Table("metric")
        table.add_column("%", justify="right")
        table.add_column("95 % interval", justify="right")
        for row in self.rows():
            table.add_row(*row.values())
        return Group(table, self.summary(), *map(escape, self.notes))


def plain_json(report: Any, without: Sequence[str] = ()) -> str:
    """Return JSON text of a dataclass; numbers that are not finite become null.

    Args:
        report: The dataclass.
        without: Fields to leave out.
    """
    names = [field.name for field in dataclasses.fields(report) if field.name not in without]
    return json.dumps(_plain({name: getattr(report, name) for name in names}), indent=2, ensure_ascii=False) + "\n"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if dataclasses.is_dataclass(value):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    return value

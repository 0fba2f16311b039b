"""R@1 of each class, the worst first, with its number of queries and its interval, for the HTML report."""

import dataclasses
import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg.analysis import report
from tf_detreg.retrieval import intervals

SHOWN = 15  # classes before the list is unfolded
LISTED = 1000  # classes at most, so that a page of many classes stays small
STYLE = """
  .classes td:first-child { overflow-wrap: anywhere; min-width: 8rem; max-width: 22rem; }
  .classes .bar { position: relative; width: 9rem; min-width: 5rem; }
  .classes .bar span { position: absolute; top: 50%; height: .5rem; margin-top: -.25rem; border-radius: 3px; }
  .classes .span { left: calc(var(--a) * 1%); width: calc((var(--b) - var(--a)) * 1%); background: var(--line); }
  .classes .dot { left: calc(var(--v) * 1% - .25rem); width: .5rem; background: var(--accent); }
  .classes details { margin-top: .6rem; } .classes summary { cursor: pointer; padding: .4rem 0; }
"""


@dataclasses.dataclass(frozen=True)
class ClassRecall:
    """R@1 of one class.

    Args:
        name: The class name.
        queries: Queries of this class that have a relevant item in their gallery.
        hits: Those whose nearest item is relevant.
    """

    name: str
    queries: int
    hits: int

    @property
    def recall(self) -> float:
        """Return R@1 between 0 and 1."""
        return self.hits / self.queries

    @property
    def interval(self) -> tuple[float, float]:
        """Return the Wilson interval (95 %), as if the queries were independent."""
        return intervals.of_share(self.hits, self.queries)


def by_class(
    per_query: Mapping[str, np.ndarray], labels: ArrayLike, class_names: Sequence[str]
) -> tuple[ClassRecall, ...]:
    """Return R@1 of each class that has queries with positives, the worst first.

    Of classes with the same R@1, that with more queries comes first.

    Args:
        per_query: `RetrievalReport.per_query`.
        labels: (Q,) integers from 0, the classes of the queries.
        class_names: The name of each.

    Example:
        >>> per_query = {"relevant": np.array([1, 1, 1, 1, 0]), "first_rank": np.array([1, 2, 1, 1, 0])}
        >>> [(one.name, one.hits, one.queries) for one in by_class(per_query, [0, 0, 1, 1, 2], ["a", "b", "c"])]
        [('a', 1, 2), ('b', 2, 2)]
    """
    labels = np.asarray(labels)
    known = per_query["relevant"] > 0
    queries = np.bincount(labels[known], minlength=len(class_names))
    hits = np.bincount(labels[known & (per_query["first_rank"] == 1)], minlength=len(class_names))
    found = [ClassRecall(str(class_names[c]), int(queries[c]), int(hits[c])) for c in np.flatnonzero(queries).tolist()]
    return tuple(sorted(found, key=lambda one: (one.recall, -one.queries)))


def section(classes: Sequence[ClassRecall]) -> report.Section:
    """Return the list as a section of the HTML report, which needs `STYLE`.

    Args:
        classes: Of `by_class`.
    """
    shares = np.array([one.recall for one in classes])
    lead = (
        f"The worst first, of {len(classes):,}. Median {100 * np.median(shares):.0f} %; {int((shares == 1).sum()):,} "
        f"classes find all their queries, {int((shares == 0).sum()):,} none. The interval (Wilson, 95 %) is of each "
        "class alone: among many classes, some with few queries are low by chance."
    )
    fragment = _table(classes[:SHOWN])
    if rest := classes[SHOWN:LISTED]:
        more = f"The next {len(rest):,} classes"
        if len(classes) > LISTED:
            more += f"; the best {len(classes) - LISTED:,} are left out"
        fragment += f"<details><summary>{more}</summary>{_table(rest)}</details>"
    return report.Section("R@1 of each class", lead, f'<div class="classes">{fragment}</div>')


def _table(classes: Sequence[ClassRecall]) -> str:
    head = (
        "<th>class</th><th>queries</th><th>R@1</th><th>95 % interval</th><th aria-label='R@1 and interval, drawn'></th>"
    )
    body = "".join(map(_row, classes))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(one: ClassRecall) -> str:
    low, high = (100 * end for end in one.interval)
    value = 100 * one.recall
    drawn = f'<span class="span" style="--a:{low:.1f};--b:{high:.1f}"></span>'
    drawn += f'<span class="dot" style="--v:{value:.1f}"></span>'
    cells = f"<td>{html.escape(one.name)}</td><td>{one.queries:,}</td><td>{value:.1f}</td>"
    return f'<tr>{cells}<td>{low:.1f} to {high:.1f}</td><td class="bar">{drawn}</td></tr>'

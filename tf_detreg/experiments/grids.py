"""Tables of text, as Markdown for a page of the documentation and as HTML for the page of a study."""

import dataclasses
import html
from collections.abc import Sequence

from tf_detreg.analysis import report


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table with a heading and a note.

    Args:
        heading: Shown on the HTML page; Markdown pages name a table in its first cell.
        head: The columns' names.
        rows: A cell for each column.
        best: Number of the row that stands out. Default: none does.
        note: A sentence under it. Default: none.

    Example:
        >>> print(Grid("Results", ["", "R@1"], [["linear", "50.0"], ["flow", "60.0"]], best=1).to_markdown())
        |  | R@1 |
        |---|---|
        | linear | 50.0 |
        | **flow** | 60.0 |
    """

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None
    note: str = ""

    def to_markdown(self) -> str:
        """Return the table, and the note as a paragraph of its own."""
        lines = ["| " + " | ".join(self.head) + " |", "|" + "---|" * len(self.head)]
        for number, (name, *cells) in enumerate(self.rows):
            lines.append("| " + " | ".join([f"**{name}**" if number == self.best else name, *cells]) + " |")
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")

    def to_html(self) -> str:
        """Return the table and the note as a fragment of a page."""
        rows = [dict(zip(self.head, row, strict=True)) for row in self.rows]
        return report.table(rows, best=self.best) + (f"<p>{html.escape(self.note)}</p>" if self.note else "")

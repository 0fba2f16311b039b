"""One HTML page about a run: one file, no network, nothing to install for its reader.

The page is put together from sections, each a heading, a sentence that says how to read what follows, and a fragment of
HTML. The functions below make the fragments; `write` joins them and puts the file in place atomically. A policy
inside the page (Content-Security-Policy) lets the browser load nothing from elsewhere, and run the page's one script.
"""

import base64
import dataclasses
import hashlib
import html
import io
import json
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tf_detreg import extras
from tf_detreg.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATE = pathlib.Path(__file__).with_name("report.html")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        heading: Shown above the fragment.
        lead: A sentence that tells the reader how to read it.
        fragment: HTML, made by `table`, `curves` or `tf_detreg.analysis.neighbors`.
    """

    heading: str
    lead: str
    fragment: str


def table(rows: Sequence[Mapping[str, object]], best: int | None = None) -> str:
    """Return an HTML table; the keys of the first row are the columns.

    Args:
        rows: One mapping a row. Floats are shown with two decimals.
        best: Number of the row that stands out. Default None: none does.

    Example:
        >>> table([{"embedding": "trained", "R@1": 93.25}], best=0)
        '<div class="scroll"><table><thead><tr><th>embedding</th><th>R@1</th></tr></thead>\
<tbody><tr class="best"><td>trained</td><td>93.25</td></tr></tbody></table></div>'
    """
    columns = list(rows[0]) if rows else []
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        ('<tr class="best">' if number == best else "<tr>")
        + "".join(f"<td>{_cell(row[column])}</td>" for column in columns)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else html.escape(str(value))


def curves(history: Sequence[Mapping[str, float]]) -> str:
    """Return training curves, one small plot a quantity, as inline SVG.

    Args:
        history: A mapping an epoch: `epoch`, counted from 1, and the quantities that were logged in it.
    """
    with extras.needed("A report"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

    names = [name for name in dict.fromkeys(name for row in history for name in row) if name != "epoch"]
    if not names:
        return "<p>No epoch has finished yet.</p>"
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.1 * lines), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(lines, columns, place)
        points = [(row["epoch"], row[name]) for row in history if name in row]
        axes.plot(*zip(*points, strict=True), color="#3457b2", marker=".", linewidth=1.5)
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_svg(svg_text(figure), "Training curves: " + ", ".join(names))


def svg_text(figure: "Figure") -> str:
    """Return a matplotlib figure as an SVG file, without its date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def figure_svg(svg: str, label: str) -> str:
    """Return an SVG file as a part of a page, with a text for those who cannot see it."""
    return f'<figure role="img" aria-label="{html.escape(label)}">{svg[svg.index("<svg") :]}</figure>'


def details(summary: str, content: Mapping[str, object]) -> str:
    """Return a folded block with the exact configuration, so that the page alone tells how to repeat the run."""
    text = html.escape(json.dumps(content, indent=2, default=str, ensure_ascii=False))
    return f"<details><summary>{html.escape(summary)}</summary><pre>{text}</pre></details>"


def page(title: str, lead: str, sections: Sequence[Section], style: str = "", script: str = "") -> str:
    """Return the whole page.

    Args:
        title: The heading of the page.
        lead: The sentence under it: what was done, and with what result.
        sections: In order.
        style: CSS that the fragments need. Default none.
        script: JavaScript that the fragments need, at the end of the page. Default none.
    """
    body = "\n".join(
        f"<section><h2>{html.escape(section.heading)}</h2>"
        + (f"<p>{html.escape(section.lead)}</p>" if section.lead else "")
        + f"{section.fragment}</section>"
        for section in sections
    )
    return string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        lead=html.escape(lead),
        sections=body,
        style=style,
        script=f"<script>{script}</script>" if script else "",
        policy=policy(script),
    )


def policy(script: str) -> str:
    """Return the Content-Security-Policy of a page: pictures inside it, its style, and no script but this one."""
    rules = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        rules.append(f"script-src 'sha256-{digest}'")
    return "; ".join(rules)


def write(
    path: str | os.PathLike[str],
    title: str,
    lead: str,
    sections: Sequence[Section],
    style: str = "",
    script: str = "",
) -> pathlib.Path:
    """Write `page` atomically, and return its path; missing folders are made."""
    return write_text(path, page(title, lead, sections, style, script))

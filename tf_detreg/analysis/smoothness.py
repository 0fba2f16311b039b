"""The table of how much an embedder stretches, in a model card and beside a plot."""

from collections.abc import Mapping


def smoothness_table(summary: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return Markdown of `LipschitzReport.summary()`, which is what `lipschitz.json` holds.

    Args:
        summary: Part of the embedder → number → `median` and `max` over the samples.

    Example:
        >>> print(smoothness_table({"head": {"spectral norm": {"median": 1.25, "max": 2.0}}}).splitlines()[2])
        | spectral norm | 1.25 (2) |
    """
    rows = list(dict.fromkeys(row for part in summary.values() for row in part))
    lines = ["| median (largest) | " + " | ".join(summary) + " |", "|---|" + "---:|" * len(summary)]
    for row in rows:
        cells = [part.get(row) for part in summary.values()]
        texts = ["–" if cell is None else f"{cell['median']:.4g} ({cell['max']:.4g})" for cell in cells]
        lines.append(f"| {row} | " + " | ".join(texts) + " |")
    lines += ["", "The largest spectral norm at the samples bounds the Lipschitz constant from below."]
    return "\n".join(lines)

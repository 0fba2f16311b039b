"""The table of `docs/compatibility.md`, from what was run."""

from collections.abc import Mapping

from tools.matrix.cells import CELLS

BEGIN, END = "<!-- written by `python -m tools.matrix --page` -->", "<!-- end -->"
_SHOWN = ("python", "tensorflow", "keras", "tensorflow-probability", "scann", "numpy")


def table(results: Mapping[str, Mapping]) -> str:
    """Return the table: a row for each set of versions."""
    lines = ["| set | " + " | ".join(_SHOWN) + " | what was run | passed | skipped | failed | day |"]
    lines.append("|---" * (len(_SHOWN) + 6) + "|")
    for name, cell in CELLS.items():
        found = results.get(name)
        if found is None:
            lines.append(f"| {cell.title} (`{name}`)" + " | " * len(_SHOWN) + " | not run by this command | | | | |")
            continue
        versions = [found["versions"].get(shown) or "–" for shown in _SHOWN]
        what = ", ".join(f"`{test.removeprefix('tests/')}`" for test in found["tests"]) or "the whole default suite"
        numbers = [str(found[key]) for key in ("passed", "skipped", "failed", "day")]
        lines.append("| " + " | ".join([f"{cell.title} (`{name}`)", *versions, what, *numbers]) + " |")
    return "\n".join(lines)


def filled(text: str, results: Mapping[str, Mapping]) -> str:
    """Return the page with today's table between its two marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"

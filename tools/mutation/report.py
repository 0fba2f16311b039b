"""The page that says how many planted faults the tests noticed, and which they did not."""

import collections
import pathlib
from collections.abc import Mapping

from tools.mutation.judged import Judged
from tools.mutation.mutants import Mutant, package_of
from tools.mutation.outcomes import NOT_PLANTED, NOTICED

OVERALL, EACH = 0.90, 0.85


def passed(outcomes: Mapping[Mutant, str], judged: Judged) -> bool:
    """Return whether enough faults were noticed, over all and in each package."""
    rates = [noticed / total for noticed, total, _ in _by_package(outcomes, judged).values() if total]
    return _rate(outcomes, judged) >= OVERALL and all(rate >= EACH for rate in rates)


def page(root: pathlib.Path, outcomes: Mapping[Mutant, str], draws: list[str], judged: Judged) -> str:
    """Write the report as Markdown.

    Args:
        root: The project.
        outcomes: By fault.
        draws: Where the faults come from, such as `seed 1 of miners`.
        judged: What changes nothing.
    """
    packages = _by_package(outcomes, judged)
    equivalent = {
        mutant: judged.reason(mutant) for mutant, what in outcomes.items() if _counts_not(mutant, what, judged)
    }
    waiting = sum(outcome == NOT_PLANTED and mutant not in equivalent for mutant, outcome in outcomes.items())
    lines = [
        "# Planted faults",
        "",
        f"`make mutate` planted {len(outcomes)} faults ({'; '.join(draws)}), one at a time,",
        "each in one line of the package, and ran the tests that cover the line.",
        "What these did not notice was planted again when tests had been added",
        "(`make mutate MUTATE=--again`), so that the numbers say nothing of faults that were not drawn: of those,",
        "expect fewer to be noticed, and plant a seed that nobody has looked at to see how many.",
        f"The tests noticed **{100 * _rate(outcomes, judged):.1f} %** of those that change what the package does",
        f"(wanted: {OVERALL:.0%} in all, {EACH:.0%} in each package). {len(equivalent)} change nothing that can be",
        "seen; they are not counted, and are listed with the reason.",
        *([f"{waiting} were not planted again since tests were added; they count as not noticed."] * (waiting > 0)),
        "",
        "| package | faults | noticed | % | change nothing |",
        "|---|---|---|---|---|",
    ]
    for name, (noticed, total, same) in sorted(packages.items()):
        lines.append(f"| `{name}` | {total} | {noticed} | {100 * noticed / max(total, 1):.0f} | {same} |")
    lines += ["", "## Not noticed", ""]
    unnoticed = [(m, what) for m, what in _in_order(outcomes) if what not in NOTICED and m not in equivalent]
    lines += [f"- {_shown(root, mutant)} ({outcome})" for mutant, outcome in unnoticed] or ["None."]
    lines += ["", "## Change nothing", ""]
    same = [
        f"- {_shown(root, mutant)}: {equivalent[mutant]}" for mutant, _ in _in_order(outcomes) if mutant in equivalent
    ]
    lines += same or ["None."]
    return "\n".join(lines) + "\n"


def _in_order(outcomes: Mapping[Mutant, str]) -> list[tuple[Mutant, str]]:
    return sorted(outcomes.items(), key=lambda item: (item[0].path, item[0].start))


def _shown(root: pathlib.Path, mutant: Mutant) -> str:
    source = (root / mutant.path).read_text(encoding="utf-8")
    old = " ".join(source[mutant.start : mutant.end].split())
    new = " ".join(mutant.text.split())
    return f"`{mutant.path}:{mutant.line}` {mutant.kind}: `{old:.90}` → `{new:.90}`"


def _counts_not(mutant: Mutant, outcome: str, judged: Judged) -> bool:
    """Return whether a fault is left out of the count: it was not noticed, and was judged to change nothing."""
    return outcome not in NOTICED and judged.reason(mutant) is not None


def _rate(outcomes: Mapping[Mutant, str], judged: Judged) -> float:
    packages = _by_package(outcomes, judged).values()
    return sum(noticed for noticed, _, _ in packages) / max(sum(total for _, total, _ in packages), 1)


def _by_package(outcomes: Mapping[Mutant, str], judged: Judged) -> dict[str, tuple[int, int, int]]:
    """Return by package: faults noticed, faults that change something, and those that change nothing."""
    total, noticed, same = collections.Counter(), collections.Counter(), collections.Counter()
    for mutant, outcome in outcomes.items():
        name = package_of(mutant.path)
        left_out = _counts_not(mutant, outcome, judged)
        total[name] += not left_out
        same[name] += left_out
        noticed[name] += outcome in NOTICED
    return {name: (noticed[name], total[name], same[name]) for name in total}

"""The page that says how many planted faults the tests noticed, and which they did not."""

import collections
import pathlib
from collections.abc import Mapping

from tools.mutation.mutants import Mutant, package_of
from tools.mutation.outcomes import NOTICED

OVERALL, EACH = 0.90, 0.85


def passed(outcomes: Mapping[Mutant, str]) -> bool:
    """Return whether enough faults were noticed, over all and in each package."""
    rates = [noticed / total for noticed, total in _by_package(outcomes).values()]
    return _rate(outcomes) >= OVERALL and all(rate >= EACH for rate in rates)


def page(root: pathlib.Path, outcomes: Mapping[Mutant, str], seed: int) -> str:
    """Write the report as Markdown."""
    lines = [
        "# Planted faults",
        "",
        f"`make mutate` planted {len(outcomes)} faults (seed {seed}), one at a time, each in one line of the package,",
        "and ran the tests that cover the line.",
        f"The tests noticed **{100 * _rate(outcomes):.1f} %** (wanted: {OVERALL:.0%} in all, {EACH:.0%} in each one).",
        "",
        "| package | faults | noticed | % |",
        "|---|---|---|---|",
    ]
    for name, (noticed, total) in sorted(_by_package(outcomes).items()):
        lines.append(f"| `{name}` | {total} | {noticed} | {100 * noticed / total:.0f} |")
    lines += ["", "## Not noticed", ""]
    for mutant, outcome in sorted(outcomes.items(), key=lambda item: (item[0].path, item[0].line)):
        if outcome not in NOTICED:
            source = (root / mutant.path).read_text(encoding="utf-8")
            old = " ".join(source[mutant.start : mutant.end].split())
            new = " ".join(mutant.text.split())
            lines.append(f"- `{mutant.path}:{mutant.line}` {mutant.kind} ({outcome}): `{old:.90}` → `{new:.90}`")
    return "\n".join(lines) + "\n"


def _rate(outcomes: Mapping[Mutant, str]) -> float:
    return sum(outcome in NOTICED for outcome in outcomes.values()) / max(len(outcomes), 1)


def _by_package(outcomes: Mapping[Mutant, str]) -> dict[str, tuple[int, int]]:
    total, noticed = collections.Counter(), collections.Counter()
    for mutant, outcome in outcomes.items():
        total[package_of(mutant.path)] += 1
        noticed[package_of(mutant.path)] += outcome in NOTICED
    return {name: (noticed[name], total[name]) for name in total}

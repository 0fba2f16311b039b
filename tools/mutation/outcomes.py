"""The file of what came of each fault, from which those that were not noticed can be planted again."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from tools.mutation.mutants import Mutant, mutants

NOTICED = ("killed", "timeout")


def write(file: pathlib.Path, root: pathlib.Path, outcomes: Mapping[Mutant, str]) -> None:
    """Write each fault with its outcome, the text that it replaces, and the line that this stands in."""
    rows = []
    for mutant, outcome in outcomes.items():
        source = (root / mutant.path).read_text(encoding="utf-8")
        rows.append({**dataclasses.asdict(mutant), **_place(mutant, source), "outcome": outcome})
    file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def read(file: pathlib.Path, root: pathlib.Path) -> dict[Mutant, str]:
    """Read what `write` wrote, as faults of the source as it is now.

    A fault that was noticed stays as it was. One that was not is looked for in its file, whose lines may have moved; if
    its line is gone, so is the fault.
    """
    found = {}
    for row in json.loads(file.read_text(encoding="utf-8")):
        place = {"old": row.pop("old"), "code": row.pop("code")}
        outcome = row.pop("outcome")
        mutant = Mutant(**row)
        now = mutant if outcome in NOTICED else _moved(mutant, place, root)
        if now is not None:
            found[now] = outcome
    return found


def _moved(mutant: Mutant, place: dict[str, str], root: pathlib.Path) -> Mutant | None:
    file = root / mutant.path
    if not file.is_file():
        return None
    source = file.read_text(encoding="utf-8")
    same = [
        other
        for other in mutants(mutant.path, source)
        if (other.kind, other.text) == (mutant.kind, mutant.text) and _place(other, source) == place
    ]
    return min(same, key=lambda other: abs(other.line - mutant.line), default=None)


def _place(mutant: Mutant, source: str) -> dict[str, str]:
    return {"old": source[mutant.start : mutant.end], "code": source.splitlines()[mutant.line - 1].strip()}

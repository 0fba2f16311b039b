"""The file of what came of each fault: a run that was ended goes on from it, and plants again what was not noticed."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

from tools.mutation.judged import Judged
from tools.mutation.mutants import Mutant, mutants

NOTICED = ("killed", "timeout")
NOT_PLANTED = "not planted"


def write(file: pathlib.Path, root: pathlib.Path, outcomes: Mapping[Mutant, str], draws: list[str]) -> None:
    """Write each fault with its outcome, and where to find it again: the text that it replaces, and its line.

    Args:
        file: Is replaced as a whole, so that a run may be ended at any time.
        root: The project.
        outcomes: By fault.
        draws: Where the faults come from, such as `seed 1 of miners`.
    """
    sources = {mutant.path: "" for mutant, outcome in outcomes.items() if outcome not in NOTICED}
    sources = {path: (root / path).read_text(encoding="utf-8") for path in sources}
    rows = []
    for mutant, outcome in outcomes.items():
        place = {} if outcome in NOTICED else _place(mutant, sources[mutant.path])
        rows.append({**dataclasses.asdict(mutant), **place, "outcome": outcome})
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps({"draws": draws, "faults": rows}, indent=1), encoding="utf-8")
    os.replace(part, file)


def read(file: pathlib.Path, root: pathlib.Path) -> tuple[dict[Mutant, str], list[str]]:
    """Read what `write` wrote, as faults of the source as it is now, and the draws that they come from.

    A fault that was noticed stays as it was. One that was not is looked for in its file, whose lines may have moved; if
    its line is gone, so is the fault.
    """
    found = {}
    content = json.loads(file.read_text(encoding="utf-8"))
    for row in content["faults"]:
        place = {name: row.pop(name) for name in ("old", "code", "column") if name in row}
        outcome = row.pop("outcome")
        mutant = Mutant(**row)
        now = mutant if outcome in NOTICED else _moved(mutant, place, root)
        if now is not None:
            found[now] = outcome
    return found, content["draws"]


def left(outcomes: Mapping[Mutant, str], judged: Judged) -> list[Mutant]:
    """List what to plant: what a run that was ended has left, or else all that was not noticed.

    What was judged to change nothing is not planted again.
    """
    unnoticed = {m: outcome for m, outcome in outcomes.items() if outcome not in NOTICED and judged.reason(m) is None}
    unplanted = [mutant for mutant, outcome in unnoticed.items() if outcome == NOT_PLANTED]
    return unplanted or list(unnoticed)


def _moved(mutant: Mutant, place: dict[str, str | int], root: pathlib.Path) -> Mutant | None:
    file = root / mutant.path
    if not file.is_file():
        return None
    source = file.read_text(encoding="utf-8")
    same = [
        other
        for other in mutants(mutant.path, source)
        if (other.kind, other.text) == (mutant.kind, mutant.text) and _place(other, source).items() >= place.items()
    ]
    return min(same, key=lambda other: abs(other.line - mutant.line), default=None)


def _place(mutant: Mutant, source: str) -> dict[str, str | int]:
    line = source.splitlines()[mutant.line - 1]
    column = mutant.start - source.rfind("\n", 0, mutant.start) - 1 - (len(line) - len(line.lstrip()))
    return {"old": source[mutant.start : mutant.end], "code": line.strip(), "column": column}

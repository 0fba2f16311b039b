"""Faults that somebody has judged to change nothing that can be seen: `judged.toml`, each with its reason."""

import pathlib
import tomllib

from tools.mutation.mutants import Mutant

FILE = pathlib.Path(__file__).with_name("judged.toml")


class Judged:
    """The judged faults, known by their line's text, so that lines may move.

    Args:
        root: The project.
        file: Of entries `path`, `line` (its text), `column` (in it, from 0), `new` (what is planted there), `reason`.
            Default: `judged.toml` beside this module.
    """

    def __init__(self, root: pathlib.Path, file: pathlib.Path = FILE):
        self.root = root
        entries = tomllib.loads(file.read_text(encoding="utf-8")).get("fault", [])
        self.reasons = {(e["path"], e["line"], e["column"], e["new"]): e["reason"] for e in entries}

    def reason(self, mutant: Mutant) -> str | None:
        """Return why a fault changes nothing; None if nobody has judged it so."""
        return self.reasons.get(self.key(mutant))

    def key(self, mutant: Mutant) -> tuple[str, str, int, str]:
        """Return what a fault is known by."""
        source = (self.root / mutant.path).read_text(encoding="utf-8")
        first = source.rfind("\n", 0, mutant.start) + 1
        end = source.find("\n", mutant.start)
        line = source[first : len(source) if end < 0 else end]
        indent = len(line) - len(line.lstrip())
        return mutant.path, line.strip(), mutant.start - first - indent, " ".join(mutant.text.split())

    def entry(self, mutant: Mutant, reason: str) -> str:
        """Return the text to add to the file for a fault."""
        path, line, column, new = self.key(mutant)
        quoted = lambda text: "'''" + text + "'''"  # noqa: E731 - TOML's text without escapes
        rows = [f"path = {quoted(path)}", f"line = {quoted(line)}", f"column = {column}", f"new = {quoted(new)}"]
        return "\n".join(["[[fault]]", *rows, f"reason = {quoted(reason)}", ""])

"""Check the English of the pages: `make english`, or `python -m tools.english [PAGE ...]`.

Three things, on the prose alone (no code, no tables, no addresses):

- proselint, with the checks of `.proselintrc.json` (its file has no comments; the reasons are in `OFF`);
- the project's words: none of `tools/words.py`'s retired ones, American spelling;
- no sentence with more than `LONGEST` words between its marks (`.`, `:`, `;`).

Of docs/results.md, the part below the line is left out: it is generated from tables. The part above it is held to
proselint and to the words alone: its sentences are lists of numbers.
Pages that measurements write (`MEASURED`) are left out.
"""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

from tools import words

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / ".proselintrc.json"
LONGEST = 35
MEASURED = {"benchmarks.md", "mutation.md"}
# Checks of proselint that are off in CONFIG, and why.
OFF = {
    "typography.symbols.curly_quotes": "straight quotes are what people type and search for",
    "typography.diacritical_marks": "it takes the verb `resume` for a résumé",
    "dates_times.dates.dash_and_from": "it takes ranges of numbers for dates",
    "dates_times.dates.decade_apostrophes": "it takes numbers with a genitive for decades",
    "restricted": "words of a single newspaper; off by default, too",
}
FENCE = re.compile(r"^ *(```|~~~)")
MARKS = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=[A-Z(\"*_¤])|(?<=[;:])\s")


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong on a line of a page.

    Args:
        path: The page.
        line: From 1.
        text: What is wrong.
    """

    path: pathlib.Path
    line: int
    text: str

    def __str__(self) -> str:
        return (
            f"{self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path}:{self.line}: {self.text}"
        )


def pages() -> list[pathlib.Path]:
    """Return the pages that are checked."""
    top = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT")]
    return [*top, *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name not in MEASURED)]


def prose(text: str) -> str:
    """Return a page of the same lines and columns, with all that is no prose blanked out.

    Inline code becomes a word of `¤`, so that sentences stay whole. Words of links move to the link's first column.

    Example:
        >>> prose("See [the page](a.md) of `x`.\\n| a | b |")
        'See the page         of ¤¤¤.\\n         '
    """
    if text.startswith("# Results"):
        text = text.split("\n---\n", 1)[0]
    lines, code = [], False
    for line in text.split("\n"):
        if FENCE.match(line):
            code, line = not code, ""
        # A heading ends, though it has no full stop.
        lines.append(" " * len(line) if code or line.startswith("|") else line + "." * line.startswith("#"))
    text = "\n".join(lines)
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])  # noqa: E731
    text = re.sub(r"<!--.*?-->|<[a-z/][^<>]*>", blank, text, flags=re.DOTALL)
    text = re.sub(r"(`+)(.+?)\1", lambda match: re.sub(r"[^\n]", "¤", match[0]), text, flags=re.DOTALL)
    text = re.sub(
        r"!?\[([^\[\]]*)\]\([^()\s]*\)",
        lambda match: match[1] + " " * (len(match[0]) - len(match[1])),  # in front of it: two spaces after a full stop
        text,
    )
    return re.sub(r"https?://\S+", blank, text)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each part of a sentence between two marks.

    Example:
        >>> list(sentences("# Title\\n\\nOne thing: two\\nmore. Three."))
        [(3, 'One thing:'), (3, 'two more.'), (3, 'Three.')]
    """
    block: list[str] = []
    start = 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        item = re.match(r"\s*(?:[-*+]|\d+\.)\s+", line)
        if not line.strip() or line.startswith("#") or item:
            for part in MARKS.split(" ".join(" ".join(block).split())):
                if part:
                    yield start, part
            block = []
        if not line.strip() or line.startswith("#"):
            continue
        if not block:
            start = number
        block.append(line[item.end() :] if item else line)


def count(sentence: str) -> int:
    """Return the number of words; numbers, intervals and signs are none."""
    return sum(any(c.isalpha() or c == "¤" for c in word) for word in sentence.split())


def own_faults(path: pathlib.Path, text: str) -> Iterator[Fault]:
    """Yield retired words, British spelling, and sentences that are too long."""
    for word, line in words.retired(text):
        yield Fault(path, line, f"{word!r} is retired; docs/glossary.md says what to write")
    for match in words.BRITISH.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Fault(path, line, f"{match[0]}…: American spelling is {words.AMERICAN[match[0].lower()]}…")
    if path.name == "results.md":
        return
    for line, sentence in sentences(text):
        if (length := count(sentence)) > LONGEST:
            yield Fault(path, line, f"{length} words without a mark (at most {LONGEST}): {sentence[:60]}…")


def proselint_faults(texts: dict[pathlib.Path, str]) -> Iterator[Fault]:
    """Yield what proselint finds in the prose of pages."""
    with tempfile.TemporaryDirectory() as directory:
        copies = {pathlib.Path(directory) / f"{number}.md": path for number, path in enumerate(texts)}
        for copy, path in copies.items():
            copy.write_text(texts[path], encoding="utf-8")
        arguments = ["check", "--config", str(CONFIG), "--output-format", "json", *map(str, copies)]
        done = subprocess.run([sys.executable, "-m", "proselint", *arguments], capture_output=True, text=True)
        if not done.stdout.lstrip().startswith("{"):
            raise RuntimeError(f"proselint did not run: {done.stderr or done.stdout}")
        for address, found in json.loads(done.stdout)["result"].items():
            path = copies[pathlib.Path(address.removeprefix("file://"))]
            for one in found.get("diagnostics", ()):
                yield Fault(path, one["pos"][0], f"{one['check_path']}: {one['message']}")


def faults(paths: Iterable[pathlib.Path]) -> list[Fault]:
    """Return what is wrong with pages, in order."""
    texts = {path: prose(path.read_text(encoding="utf-8")) for path in paths}
    found = [fault for path, text in texts.items() for fault in own_faults(path, text)]
    return sorted([*found, *proselint_faults(texts)], key=lambda fault: (str(fault.path), fault.line))


def main() -> None:
    """Print what is wrong, and exit with 1 if anything is."""
    found = faults([pathlib.Path(name).resolve() for name in sys.argv[1:]] or pages())
    for fault in found:
        print(fault)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

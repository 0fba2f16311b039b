"""What the pages of the documentation hold: fenced blocks, prose, anchors."""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Written by commands: their lines are checked where they come from.
GENERATED = {ROOT / "docs" / "results.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "mutation.md"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: pathlib.Path
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[pathlib.Path]:
    """Return README and every page below docs/, in order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: pathlib.Path) -> list[Block]:
    """Return the fenced blocks of a page; one whose line before says `<!-- not run: reason -->` carries the reason."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        reason = NOT_RUN.fullmatch(before.strip())
        line = text[: match.start()].count("\n") + 1
        found.append(Block(page, line, match[1], match[2], reason and reason[1]))
    return found


def prose(page: pathlib.Path) -> str:
    """Return the page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)


def slugs(page: pathlib.Path) -> set[str]:
    """Anchors of a page's headings, as forges and the site make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        found |= {re.sub(r"\s", "-", words), re.sub(r"[-\s]+", "-", words)}
    return found

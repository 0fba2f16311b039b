"""Compose docs/benchmarks.md from what the benchmarks wrote: `make bench` runs them all, then this.

Each `bench_*.py` writes `benchmarks/results/<part>.json`, or several `<part>-….json`; a part whose files are missing is
named as not measured. No figure is typed by hand, and a target that was missed is shown as missed.
`python benchmarks/report.py index` puts the results of one benchmark in the place of what the page has of it.
"""

import json
import pathlib
import re
import sys

from tf_detreg.files import write_text

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEADINGS = {"index": "An index"}  # how the headings begin, of benchmarks that can be updated alone
INTRODUCTIONS = {
    "index": """
## An index: what was measured

`python benchmarks/bench_index.py --part lifecycle|engines|large|shards`, on the commits that are named: synthetic,
seeded vectors in classes of ten that fill about 20 of 128 dimensions, as those of a trained model do; two threads; 10
neighbors. In the lifecycle each item has an id and two indexed fields. Ours bring ids and metadata of what was found,
other libraries row numbers. Other work took much of both cores, which processor seconds, in brackets, show least.
Queries a second *by the processor* are two over the processor seconds of a query. The lifecycle was measured while
usearch was linked with `expansion_add` 64, and was stopped before usearch and hnswlib alone. It is 40 since, which the
other section of a million items measures.
"""
}
HEAD = """# Benchmarks

Composed from what each benchmark script wrote when it last ran (`make bench` runs them all); notes say where the
machine was not quiet, or which part of a script was run. Retrieval counts processor seconds of one core, because the
other one was in use when it last ran. Each row compares two ways to do the same work in one
process, in turns (A, B, A, B), so that a machine whose speed drifts slows both. *Ratio* is the median of ours over the
median of theirs (below 1: ours is faster), *spread* the smallest and largest ratio of a pair of turns. *Target* is
what we set ourselves; a missed one is marked and stays in the table.
"""


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.2f} ms"


def verdict(row: dict) -> str:
    target, ratio = row.get("target"), row.get("ratio")
    if target is None:
        return "–"
    if ratio is None:
        return f"≤ {target:g} s {'✓' if row['ours'] <= target else '✗ missed'}"
    met = ratio >= target if row.get("higher_is_better") else ratio <= target
    sign = "≥" if row.get("higher_is_better") else "≤"
    return f"{sign} {target:g} {'✓' if met else '✗ missed'}"


def section(result: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [f"\n## {result['title']}\n", f"{result['machine']}; {versions}.\n"]
    if result.get("notes"):
        lines.append(f"{result['notes']}\n")
    if not result["rows"]:
        return "\n".join(lines) + "\n"
    lines += ["| what | ours | peer | theirs | ratio | spread | target |", "|---|---:|---|---:|---:|---:|---|"]
    for row in result["rows"]:
        spread = " – ".join(f"{bound:.2f}" for bound in row["spread"]) if row.get("spread") else "–"
        ratio = "–" if row.get("ratio") is None else f"{row['ratio']:.2f}"
        cells = (
            row["what"],
            seconds(row.get("ours")),
            row.get("peer") or "–",
            seconds(row.get("theirs")),
            ratio,
            spread,
        )
        lines.append("| " + " | ".join([*cells, verdict(row)]) + " |")
    return "\n".join(lines) + "\n"


def sections(part: str) -> list[str]:
    """What a benchmark wrote, each with its heading."""
    found = sorted({*HERE.glob(f"results/{part}.json"), *HERE.glob(f"results/{part}-*.json")})
    made = [section(json.loads(path.read_text(encoding="utf-8"))) for path in found]
    return [INTRODUCTIONS[part], *made] if made and part in INTRODUCTIONS else made


def update(page: str, part: str, heading: str) -> str:
    """The page with the sections whose headings begin so replaced by what a benchmark wrote."""
    head, *known = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    first = next(at for at, one in enumerate(known) if one.startswith(f"## {heading}"))
    kept = [one for one in known if not one.startswith(f"## {heading}")]
    kept[first:first] = [f"{one.strip()}\n\n\n" for one in sections(part)]
    return head + "".join(kept)


def main() -> None:
    if sys.argv[1:]:
        (part,) = sys.argv[1:]
        write_text(PAGE, update(PAGE.read_text(encoding="utf-8"), part, HEADINGS[part]))
        return
    parts = sorted(script.stem.removeprefix("bench_") for script in HERE.glob("bench_*.py"))
    page = [HEAD]
    for part in parts:
        made = sections(part)
        page += made or [f"\n## {part}\n\nNot measured in this run: `python benchmarks/bench_{part}.py`.\n"]
    write_text(PAGE, "\n".join(page))
    print(f"Wrote {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()

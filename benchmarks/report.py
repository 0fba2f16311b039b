"""Compose docs/benchmarks.md from what the benchmarks wrote: `make bench` runs them all, then this.

Each `bench_*.py` writes `benchmarks/results/<part>.json`; a part whose file is missing is named as not measured. No
figure is typed by hand, and a target that was missed is shown as missed.
"""

import json
import pathlib

from tf_detreg.files import write_text

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Composed from what each benchmark script wrote when it last ran (`make bench` runs them all); notes say where the
machine was not quiet, or which part of a script was run. Retrieval counts processor seconds of one core, because the
other one was in use when it last ran. Each row compares two ways to do the same work in one
process, in turns (A B A B …), so that a machine whose speed drifts slows both. *Ratio* is the median of ours over the
median of theirs (below 1: ours is faster), *spread* the smallest and largest ratio of a pair of turns. *Target* is
what we set ourselves; a missed one is marked and stays in the table.
"""


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.2f} ms"


def verdict(row: dict) -> str:
    target, ratio = row.get("target"), row.get("ratio")
    if target is None or ratio is None:
        return "–"
    met = ratio >= target if row.get("higher_is_better") else ratio <= target
    sign = "≥" if row.get("higher_is_better") else "≤"
    return f"{sign} {target:g} {'✓' if met else '✗ missed'}"


def section(result: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [f"\n## {result['title']}\n", f"{result['machine']}; {versions}.\n"]
    if result.get("notes"):
        lines.append(f"{result['notes']}\n")
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


def main() -> None:
    parts = sorted(script.stem.removeprefix("bench_") for script in HERE.glob("bench_*.py"))
    page = [HEAD]
    for part in parts:
        path = HERE / "results" / f"{part}.json"
        if path.exists():
            page.append(section(json.loads(path.read_text(encoding="utf-8"))))
        else:
            page.append(f"\n## {part}\n\nNot measured in this run: `python benchmarks/bench_{part}.py`.\n")
    write_text(PAGE, "\n".join(page))
    print(f"Wrote {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()

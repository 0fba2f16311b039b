"""Run the default tests on sets of versions: `make matrix`; `docs/compatibility.md` has the table.

python -m tools.matrix                       every set, the whole default suite
python -m tools.matrix newest --chosen       one set, the chosen tests
python -m tools.matrix scann --tests tests/heads
python -m tools.matrix --page                write the table anew
"""

import argparse
import pathlib
import shutil
import sys
from typing import Any

from tf_detreg.files import read_json, write_json
from tools.matrix import page, running
from tools.matrix.cells import CELLS, CHOSEN

ROOT = pathlib.Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "tools" / "matrix" / "results.json", ROOT / "docs" / "compatibility.md"


def main() -> None:
    """Do what the command line asks for; the status is 1 where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(CELLS)}; all by default")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--chosen", action="store_true", help="the tests that other versions could break, in minutes")
    what.add_argument("--tests", nargs="+", default=(), help="these tests; by default the whole default suite")
    what.add_argument("--page", action="store_true", help="run nothing, write the table of the results")
    parser.add_argument("--environment", type=pathlib.Path, help="an environment that is there already, for one set")
    parser.add_argument("--keep", action="store_true", help="keep the environments in .matrix/, and take those there")
    parser.add_argument("--dry", action="store_true", help="write neither results nor page")
    parser.add_argument("--processes", type=int, default=2, help="tests that run at a time (default 2)")
    options = parser.parse_args()
    if unknown := set(options.sets) - set(CELLS):
        parser.error(f"`sets` must be of {', '.join(CELLS)}; received {', '.join(sorted(unknown))}.")
    failed = []
    for name in () if options.page else options.sets or CELLS:
        found = _run(name, options)
        print(f"{name}: {found['passed']} passed, {found['skipped']} skipped, {found['failed']} failed", flush=True)
        failed += [name] if found["failed"] or not found["passed"] else []
        if not options.dry:
            write_json(RESULTS, {**_results(), name: found})
    if not options.dry:
        PAGE.write_text(page.filled(PAGE.read_text(encoding="utf-8"), _results()), encoding="utf-8")
    sys.exit(f"Tests failed on: {', '.join(failed)}." if failed else 0)


def _results() -> dict[str, Any]:
    """Return what was run before, read anew, since another run may have written meanwhile."""
    return read_json(RESULTS) if RESULTS.exists() else {}


def _run(name: str, options: argparse.Namespace) -> dict[str, object]:
    tests = CHOSEN if options.chosen else tuple(options.tests)
    if options.environment:
        return running.run(ROOT, options.environment / "bin" / "python", tests, options.processes)
    folder = ROOT / ".matrix" / name
    python = folder / "bin" / "python"
    try:
        if not (options.keep and python.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            python = running.install(ROOT, CELLS[name], folder)
        return running.run(ROOT, python, tests, options.processes)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

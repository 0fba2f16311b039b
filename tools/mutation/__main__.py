"""Plant faults, run the tests that cover them, and write the share that was noticed: `make mutate`."""

import argparse
import concurrent.futures
import pathlib
import queue
import sys
import tempfile
import time
from collections.abc import Iterator

from tools.mutation import outcomes as kept
from tools.mutation import report, selection
from tools.mutation.judged import Judged
from tools.mutation.mutants import Mutant, sample
from tools.mutation.planting import ROOT, Worker

DATA = ROOT / "build" / "mutation"


def main() -> int:
    """Run the command."""
    options, known, file = _options(), Judged(ROOT), DATA / "outcomes.json"
    if options.measure or not (DATA / "durations.json").is_file():
        selection.measure(ROOT, DATA)
    outcomes, draws = kept.read(file, ROOT) if options.again or options.more or options.page else ({}, [])
    if options.again:
        planted = kept.left(outcomes, known)
    elif options.page:
        planted = []
    else:
        planted = [m for m in sample(ROOT, options.count, options.seed, options.only) if m not in outcomes]
        draw = f"seed {options.seed}" + (f" of {', '.join(options.only)}" if options.only else "")
        draws = [*draws, draw] if draw not in draws else draws
    outcomes |= dict.fromkeys(planted, kept.NOT_PLANTED)
    print(f"{len(planted)} faults, {options.workers} processes", flush=True)
    began = time.monotonic()
    for judged, (mutant, outcome) in enumerate(_planted(planted, options), 1):
        outcomes[mutant] = outcome
        kept.write(file, ROOT, outcomes, draws)
        left = (time.monotonic() - began) / judged * (len(planted) - judged)
        print(f"{judged}/{len(planted)} {outcome} {mutant.path}:{mutant.line} {mutant.kind}", flush=True)
        print(f"    {left / 60:.0f} min left", flush=True)
    page = report.page(ROOT, outcomes, draws, known)
    (options.to or ROOT / "docs" / "mutation.md").write_text(page, encoding="utf-8")
    print(page.split("\n## ")[0])
    return 0 if report.passed(outcomes, known) or options.only else 1


def _planted(faults: list[Mutant], options: argparse.Namespace) -> Iterator[tuple[Mutant, str]]:
    """Plant each fault in one of several copies of the project, and yield what came of it."""
    if not faults:
        return
    chosen = selection.Selection(ROOT, DATA, options.budget, selection.collected(ROOT))
    workers = options.workers
    idle: queue.Queue[Worker] = queue.Queue()

    def judge(mutant: Mutant) -> str:
        worker = idle.get()
        try:
            tests = chosen.tests(mutant)
            return worker.outcome(mutant, tests, options.patience * (6 + chosen.expected(tests)))
        finally:
            idle.put(worker)

    with tempfile.TemporaryDirectory() as directory:
        started = [Worker(pathlib.Path(directory) / str(number)) for number in range(workers)]
        for worker in started:
            idle.put(worker)
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            running = {pool.submit(judge, mutant): mutant for mutant in faults}
            for done in concurrent.futures.as_completed(running):
                yield running[done], done.result()
        for worker in started:
            worker.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="faults to plant, about (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--only", nargs="*", default=(), help="packages such as `losses`, or beginnings of paths")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for one fault (default 60)")
    parser.add_argument(
        "--patience",
        type=float,
        default=5.0,
        help="how many times as long as they took when they were measured the tests may take (default 5); more where "
        "other programs run",
    )
    parser.add_argument("--measure", action="store_true", help="measure again which test covers which line")
    parser.add_argument("--to", type=pathlib.Path, help="the page to write (default docs/mutation.md)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--again",
        action="store_true",
        help="go on with a run that was ended; else plant once more what the last runs' tests did not notice",
    )
    which.add_argument("--more", action="store_true", help="add the faults of another draw to those of the last runs")
    which.add_argument("--page", action="store_true", help="plant nothing, write the page of the last runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

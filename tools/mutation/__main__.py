"""Plant faults, run the tests that cover them, and write the share that was noticed: `make mutate`."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import time

from tools.mutation import outcomes as kept
from tools.mutation import report, selection
from tools.mutation.judged import Judged
from tools.mutation.mutants import Mutant, sample

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Worker:
    """A copy of the project and the process that runs tests in it.

    Args:
        directory: Where the copy is made.
    """

    def __init__(self, directory: pathlib.Path):
        self.copy = directory / "project"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, listed.decode().split("\0")):
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.copy / name)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, str(ROOT / "tools" / "mutation" / "worker.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=self.copy, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def test(self, tests: list[str], timeout: float) -> str:
        """Run tests on the copy as it is."""
        self.process.stdin.write(json.dumps({"tests": tests, "timeout": timeout}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError("The process that runs the tests has ended.")
        return answer

    def outcome(self, mutant: Mutant, tests: list[str], timeout: float) -> str:
        """Plant a fault, run its tests, and take it out again."""
        if not tests:
            return "covered by no test"
        file = self.copy / mutant.path
        source = file.read_text(encoding="utf-8")
        try:
            file.write_text(mutant.apply(source), encoding="utf-8")
            return self.test(tests, timeout)
        finally:
            file.write_text(source, encoding="utf-8")

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def main() -> int:
    """Run the command."""
    options = _options()
    data = ROOT / "build" / "mutation"
    if options.measure or not (data / "durations.json").is_file():
        selection.measure(ROOT, data)
    chosen = selection.Selection(ROOT, data, options.budget, selection.collected(ROOT) if options.again else ())
    outcomes = kept.read(data / "outcomes.json", ROOT) if options.again else {}
    planted = [mutant for mutant, outcome in outcomes.items() if outcome not in kept.NOTICED]
    planted = planted if options.again else sample(ROOT, options.count, options.seed, options.only)
    print(f"{len(planted)} faults, {options.workers} processes", flush=True)
    began, judged = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as directory:
        idle: queue.Queue[Worker] = queue.Queue()
        workers = [Worker(pathlib.Path(directory) / str(number)) for number in range(options.workers)]
        for worker in workers:
            idle.put(worker)

        def judge(mutant: Mutant) -> str:
            worker = idle.get()
            try:
                return worker.outcome(mutant, chosen.tests(mutant), 30 + 5 * options.budget)
            finally:
                idle.put(worker)

        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
            running = {pool.submit(judge, mutant): mutant for mutant in planted}
            for done in concurrent.futures.as_completed(running):
                mutant = running[done]
                outcomes[mutant] = done.result()
                judged += 1
                left = (time.monotonic() - began) / judged * (len(planted) - judged)
                place, total = f"{mutant.path}:{mutant.line}", len(planted)
                print(f"{judged}/{total} {outcomes[mutant]} {place} {mutant.kind}", flush=True)
                print(f"    {left / 60:.0f} min left", flush=True)
        for worker in workers:
            worker.close()
    kept.write(data / "outcomes.json", ROOT, outcomes)
    known = Judged(ROOT)
    page = report.page(ROOT, outcomes, options.seed, known)
    (options.to or ROOT / "docs" / "mutation.md").write_text(page, encoding="utf-8")
    print(page.split("\n## ")[0])
    return 0 if report.passed(outcomes, known) or options.only else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="faults to plant, about (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--only", default="", help="a package such as `losses`, or the beginning of a path")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for one fault (default 60)")
    parser.add_argument("--measure", action="store_true", help="measure again which test covers which line")
    parser.add_argument(
        "--again", action="store_true", help="plant what the last run's tests did not notice, once more"
    )
    parser.add_argument("--to", type=pathlib.Path, help="the page to write (default docs/mutation.md)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

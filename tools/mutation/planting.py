"""A copy of the project in which faults are planted, and what its tests say of each."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tools.mutation.mutants import Mutant

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Verdict:
    """Says what the tests make of a fault, and trusts only those that pass without it.

    Args:
        copy: The project in which faults are planted.
    """

    def __init__(self, copy: pathlib.Path):
        self.copy = copy
        self.trusted: set[str] = set()
        self.failing: set[str] = set()

    def test(self, tests: list[str], limit: float) -> tuple[str, str]:
        """Run tests on the copy as it is, and return what came of it and which test failed first."""
        raise NotImplementedError

    def outcome(self, mutant: Mutant, tests: list[str], limit: float) -> str:
        """Plant a fault, run its tests, and take it out again.

        A test that fails, or takes too long, is run without the fault as well: where that ends no better, it says
        nothing of the fault, and is left out.

        Args:
            mutant: The fault.
            tests: To run, in this order, until one fails.
            limit: Seconds, after which they are ended.

        Returns:
            `killed`, `timeout` and `survived` as the tests say; `covered by no test` where there is none;
            `tests too slow` if they take longer than the limit without the fault as well.
        """
        tests = [test for test in tests if test not in self.failing]
        while tests:
            with self._planted(mutant):
                what, by = self.test(tests, limit)
            if what == "survived" or by in self.trusted:
                return what
            suspects = [test for test in tests if by and test.startswith(by)][:1] or tests
            without, unfit = self.test(suspects, limit)
            if without == "survived":
                self.trusted |= {by} - {""}
                return what
            unfit_tests = {test for test in tests if unfit and test.startswith(unfit)}
            if not unfit_tests:
                return "tests too slow"
            self.failing |= unfit_tests
            tests = [test for test in tests if test not in unfit_tests]
        return "covered by no test"

    @contextlib.contextmanager
    def _planted(self, mutant: Mutant) -> Iterator[None]:
        file = self.copy / mutant.path
        source = file.read_text(encoding="utf-8")
        try:
            file.write_text(mutant.apply(source), encoding="utf-8")
            yield
        finally:
            file.write_text(source, encoding="utf-8")


class Worker(Verdict):
    """A copy of the project and the process that runs tests in it.

    Args:
        directory: Where the copy is made.
    """

    def __init__(self, directory: pathlib.Path):
        super().__init__(directory / "project")
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

    def test(self, tests: list[str], limit: float) -> tuple[str, str]:
        """Run tests on the copy as it is, and return what came of it and which test failed first."""
        self.process.stdin.write(json.dumps({"tests": tests, "timeout": limit}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("The process that runs the tests has ended.")
        what, by = json.loads(answer)
        return what, by

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

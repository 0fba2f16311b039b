"""Which tests can notice a fault: those that run its line, the quickest first."""

import json
import os
import pathlib
import subprocess
import sys

import coverage

from tools.mutation.mutants import Mutant, package_of


class Selection:
    """Chooses tests for a fault from what one run of all tests has covered.

    Args:
        root: The project.
        directory: Where `measure` left its files.
        budget: Seconds of tests for one fault, by what they took in that run. Default 60.
    """

    def __init__(self, root: pathlib.Path, directory: pathlib.Path, budget: float = 60.0):
        self.root, self.budget = root, budget
        self.seconds = json.loads((directory / "durations.json").read_text(encoding="utf-8"))
        self.data = coverage.CoverageData(str(directory / "coverage.sqlite"))
        self.data.read()

    def tests(self, mutant: Mutant) -> list[str]:
        """List the tests to run: of the line, or where only an import runs it, of the file."""
        lines = self.data.contexts_by_lineno(str(self.root / mutant.path))
        covering = self._known(lines.get(mutant.line, ()))
        if not covering:
            covering = self._known(context for contexts in lines.values() for context in contexts)
        mirrored = f"tests/{package_of(mutant.path)}/"
        ordered = sorted(covering, key=lambda test: (not test.startswith(mirrored), self.seconds[test], test))
        chosen, spent = [], 0.0
        for test in ordered:
            spent += self.seconds[test]
            if chosen and spent > self.budget:
                break
            chosen.append(test)
        return chosen

    def _known(self, contexts) -> set[str]:
        """Names of tests, from coverage's contexts such as `tests/a.py::test_b|run`."""
        return {name for name in (context.rpartition("|")[0] for context in contexts) if name in self.seconds}


def measure(root: pathlib.Path, directory: pathlib.Path) -> None:
    """Run the default tests once with coverage, and note which test runs which line and how long it takes.

    Raises:
        RuntimeError: If pytest ended before it had run the tests.
    """
    directory.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "COVERAGE_FILE": str(directory / "coverage.sqlite"),
        "TEST_DURATIONS": str(directory / "durations.json"),
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "tools.mutation.durations"]
    command += ["--cov=tf_detreg", "--cov-context=test", "--cov-report="]
    status = subprocess.run(command, cwd=root, env=environment).returncode
    if status not in (0, 1):
        raise RuntimeError(f"pytest ended with status {status}; nothing was measured.")

"""Which tests can notice a fault: those that run its line, the quickest first."""

import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Collection

import coverage

from tools.mutation.mutants import Mutant, package_of


class Selection:
    """Chooses tests for a fault from what one run of all tests has covered.

    Args:
        root: The project.
        directory: Where `measure` left its files.
        budget: Seconds of tests for one fault, by what they took in that run. Default 60.
        present: The tests that there are now. Those that are new since that run come first for their package, at a
            second each, and those that are gone are left out. Default: none are new or gone.
    """

    def __init__(
        self, root: pathlib.Path, directory: pathlib.Path, budget: float = 60.0, present: Collection[str] = ()
    ):
        self.root, self.budget = root, budget
        known = json.loads((directory / "durations.json").read_text(encoding="utf-8"))
        self.new = set(present) - set(known)
        self.seconds = {test: known.get(test, 1.0) for test in present or known}
        self.data = coverage.CoverageData(str(directory / "coverage.sqlite"))
        self.data.read()

    def tests(self, mutant: Mutant) -> list[str]:
        """List the tests to run: those that run the line.

        Where none does, those of the file come first and then all that mirror the package. Such a line is run by the
        import, or AutoGraph runs a translation of it, which coverage does not see.
        """
        lines = self.data.contexts_by_lineno(str(self.root / mutant.path))
        mirrored = f"tests/{package_of(mutant.path)}/"
        new = sorted(test for test in self.new if _belongs(test, mutant.path))
        covering = self._known(lines.get(mutant.line, ()))
        if covering:
            ordered = sorted(covering, key=lambda t: (not t.startswith(mirrored), self.seconds[t], t))
            return self._within_budget(new + ordered)
        of_file = self._known(context for contexts in lines.values() for context in contexts)
        others = {test for test in self.seconds if test.startswith(mirrored)} - self.new
        return self._within_budget(new + sorted(of_file | others, key=lambda t: (t not in of_file, self.seconds[t], t)))

    def _within_budget(self, tests: list[str]) -> list[str]:
        """Keep the first test, and those after it that together take no longer than the budget."""
        spent = itertools.accumulate(self.seconds[test] for test in tests)
        return [
            test
            for number, (test, total) in enumerate(zip(tests, spent, strict=True))
            if not number or total <= self.budget
        ]

    def _known(self, contexts) -> set[str]:
        """Names of tests, from coverage's contexts such as `tests/a.py::test_b|run`."""
        return {name for name in (context.rpartition("|")[0] for context in contexts) if name in self.seconds}


def _belongs(test: str, path: str) -> bool:
    """Return whether a test mirrors the package of a file, or stands at the top as the module does."""
    package = package_of(path)
    return test.startswith(f"tests/{package}/") or (package == "tf_detreg" and test.count("/") == 1)


def collected(root: pathlib.Path) -> list[str]:
    """List the default tests that there are.

    Raises:
        RuntimeError: If pytest cannot collect them.
    """
    # The project's own options make the list quieter than a list of names.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-m", "not slow"]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"pytest could not collect the tests: {done.stdout[-500:]}")
    return [line for line in done.stdout.splitlines() if "::" in line]


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
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    command += ["-p", "tools.mutation.durations"]
    command += ["--cov=tf_detreg", "--cov-context=test", "--cov-report="]
    status = subprocess.run(command, cwd=root, env=environment).returncode
    if status not in (0, 1):
        raise RuntimeError(f"pytest ended with status {status}; nothing was measured.")

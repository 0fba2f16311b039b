"""Which tests can notice a fault: those that run its line, the quickest first."""

import difflib
import functools
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Collection

import coverage

from tools.mutation.mutants import Mutant, package_of

NEW = 0.5  # Seconds that a test is taken to need which was not there when they were measured.
# They read the source of the whole package, which no line that is run says.
READERS = (
    "tests/test_checks.py::test_arguments_that_messages_name_are_there",
    "tests/test_checks.py::test_no_message_names_one_argument_and_shows_another",
    "tests/test_public_api.py::test_the_list_of_public_names_is_up_to_date",
    "tests/test_structure.py::test_text_files_name_their_encoding",
)


class Selection:
    """Chooses tests for a fault from what one run of all tests has covered.

    Args:
        root: The project.
        directory: Where `measure` left its files.
        budget: Seconds of tests for one fault, by what they took in that run. Default 60.
        present: The tests that there are now; those that are gone are left out. Of those that are new since that run,
            the ones in the module's own test file are always chosen. Default: none are new or gone.
    """

    def __init__(
        self, root: pathlib.Path, directory: pathlib.Path, budget: float = 60.0, present: Collection[str] = ()
    ):
        self.root, self.budget, self.sources = root, budget, directory / "sources"
        known = json.loads((directory / "durations.json").read_text(encoding="utf-8"))
        self.new = set(present) - set(known)
        self.seconds = {test: known.get(test, NEW) for test in present or known}
        self.data = coverage.CoverageData(str(directory / "coverage.sqlite"))
        self.data.read()
        # Another checkout than this one may have been measured.
        self.measured = {path[path.rfind("/tf_detreg/") + 1 :]: path for path in self.data.measured_files()}

    def tests(self, mutant: Mutant) -> list[str]:
        """List the tests to run: those that run the line, of the module's own test file first.

        Half of the budget is for the module's own tests, and half for others that are new, as far as there are any.
        At the end stand those that read the source of the whole package.

        Where none does, those of the file come first and then all that mirror the package. Such a line is run by the
        import, or AutoGraph runs a translation of it, which coverage does not see: of a file of which it sees nothing,
        the tests are those of its own test file.
        """
        lines = self.data.contexts_by_lineno(self.measured.get(mutant.path, mutant.path))
        mirrored = f"tests/{package_of(mutant.path)}/"
        new = {test for test in self.new if _belongs(test, mutant.path) or _is_own(test, mutant.path)}
        covering = self._known(lines.get(self._measured_line(mutant), ()))
        of_file = self._known(context for contexts in lines.values() for context in contexts)
        others = set() if covering else {test for test in self.seconds if test.startswith(mirrored)} | of_file
        sure = covering or of_file
        own = {test for test in self.seconds if _is_own(test, mutant.path) and (not sure or test in sure)} - self.new
        own_new = {test for test in new if _is_own(test, mutant.path)}

        def ordered(tests: set[str]) -> list[str]:
            return sorted(tests, key=lambda t: (t not in sure, not t.startswith(mirrored), self.seconds[t], t))

        chosen = ordered(own_new)
        half, known = self.budget / 2, (covering | others | own) - self.new
        for group, share in ((own, half), (new - own_new, half), (known, self.budget)):
            left = min(share, self.budget - self.expected(chosen))
            chosen += self._within(left, ordered(group - {*chosen}), at_least=0 if chosen else 1)
        return chosen + [test for test in READERS if test in self.seconds and test not in chosen]

    def expected(self, tests: list[str]) -> float:
        """Return the seconds that tests took together when they were measured."""
        return sum(self.seconds[test] for test in tests)

    def _within(self, budget: float, tests: list[str], at_least: int) -> list[str]:
        """Keep the first tests that together take no longer than the budget, and so many in any case."""
        spent = itertools.accumulate(self.seconds[test] for test in tests)
        return [
            test
            for number, (test, total) in enumerate(zip(tests, spent, strict=True))
            if number < at_least or total <= budget
        ]

    def _measured_line(self, mutant: Mutant) -> int | None:
        """Return where a fault's line stood when the tests were measured; None if it is new."""
        then = self.sources / mutant.path
        return _lines_then(then, self.root / mutant.path).get(mutant.line) if then.is_file() else mutant.line

    def _known(self, contexts) -> set[str]:
        """Names of tests, from coverage's contexts such as `tests/a.py::test_b|run`."""
        return {name for name in (context.rpartition("|")[0] for context in contexts) if name in self.seconds}


@functools.cache
def _lines_then(then: pathlib.Path, now: pathlib.Path) -> dict[int, int]:
    """Map the numbers of lines, from 1, that a file has kept to those that they had."""
    old, new = (path.read_text(encoding="utf-8").splitlines() for path in (then, now))
    blocks = difflib.SequenceMatcher(None, new, old, autojunk=False).get_matching_blocks()
    return {b.a + number + 1: b.b + number + 1 for b in blocks for number in range(b.size)}


def _belongs(test: str, path: str) -> bool:
    """Return whether a test mirrors the package of a file, or stands at the top as the module does."""
    package = package_of(path)
    return test.startswith(f"tests/{package}/") or (package == "tf_detreg" and test.count("/") == 1)


def _is_own(test: str, path: str) -> bool:
    """Return whether a test's file is called after a file or its package.

    Example:
        >>> _is_own("tests/images/test_headers.py::test_a", "tf_detreg/images/graph/headers.py")
        True
    """
    file, module = pathlib.PurePosixPath(test.partition("::")[0]), pathlib.PurePosixPath(path)
    name, near = file.stem.removeprefix("test_"), file.parent.name in ("tests", package_of(path))
    return name == package_of(path) or (near and name in {*module.parts[1:-1], module.stem})


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

    The sources are kept beside, so that a line is found again after it has moved.

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
    shutil.rmtree(directory / "sources", ignore_errors=True)
    for file in (root / "tf_detreg").rglob("*.py"):
        copy = directory / "sources" / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)

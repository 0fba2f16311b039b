"""A process that has TensorFlow loaded and runs tests in forks of itself, each with one fault in the package.

It reads one JSON object a line, `{"tests": […], "timeout": seconds}`, and answers with the outcome, `killed`,
`survived` or `timeout`, and the test that failed first: `["killed", "tests/test_a.py::test_b"]`.
The fault itself is written into the copy of the project that the process works in, so that tests which start processes
meet it too.
"""

import json
import os
import signal
import sys
import tempfile
import time


class FirstFailure:
    """A pytest plugin that writes the name of a test that fails, or of a file that cannot be collected."""

    def __init__(self, file):
        self.file = file

    def pytest_runtest_logreport(self, report):
        self._write(report)

    def pytest_collectreport(self, report):
        self._write(report)

    def _write(self, report):
        if report.failed:
            self.file.write(report.nodeid.encode() + b"\n")
            self.file.flush()


def run(tests: list[str], timeout: float) -> tuple[str, str]:
    """Run tests in a fork until one fails, and return what came of it and which one failed."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            _run_tests(tests, file)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                file.seek(0)
                failed = file.readline().decode().strip()
                return ("survived", "") if os.waitstatus_to_exitcode(status) == 0 else ("killed", failed)
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timeout", ""


def _run_tests(tests: list[str], file):
    import pytest

    os.setpgrp()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.getcwd()
    command = ["-q", "-x", "-p", "no:cacheprovider", "-m", "", *tests]
    os._exit(int(pytest.main(command, plugins=[FirstFailure(file)])))


def main() -> None:
    """Load what every test loads, then answer requests until standard input ends."""
    import hypothesis  # noqa: F401
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["tests"], request["timeout"])), flush=True)


if __name__ == "__main__":
    main()

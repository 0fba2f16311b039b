"""A process that has TensorFlow loaded and runs tests in forks of itself, each with one fault in the package.

It reads one JSON object a line, `{"tests": […], "timeout": seconds}`, and answers `killed`, `survived` or `timeout`.
The fault itself is written into the copy of the project that the process works in, so that tests which start processes
meet it too.
"""

import json
import os
import signal
import sys
import time


def run(tests: list[str], timeout: float) -> str:
    """Run tests in a fork until one fails, and say what came of it."""
    child = os.fork()
    if child == 0:
        _run_tests(tests)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _run_tests(tests: list[str]):
    import pytest

    os.setpgrp()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.getcwd()
    os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "", *tests])))


def main() -> None:
    """Load what every test loads, then answer requests until standard input ends."""
    import hypothesis  # noqa: F401
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        print(run(request["tests"], request["timeout"]), flush=True)


if __name__ == "__main__":
    main()

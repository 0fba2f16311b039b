"""Install a set of versions into an environment of its own, and run tests there."""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from tools.matrix.cells import Cell

TESTING = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "httpx2>=2.16", "pyyaml>=6")
SHOWN = ("tensorflow", "keras", "tensorflow-probability", "tf-keras", "scann", "numpy", "pillow", "protobuf")
_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


def interpreter(cell: Cell) -> str:
    """Return the first interpreter of a cell that this machine has; this one where it has none."""
    for minor in cell.python:
        name = f"python{minor}"
        if shutil.which(name) and not subprocess.run([name, "-c", ""], capture_output=True).returncode:
            return name
    return sys.executable


def install(root: pathlib.Path, cell: Cell, folder: pathlib.Path) -> pathlib.Path:
    """Make the environment of a cell, and return its Python."""
    python = folder / "bin" / "python"
    subprocess.run([interpreter(cell), "-m", "venv", folder], check=True)
    limits = [] if cell.constraints is None else ["-c", root / cell.constraints]
    pip = [python, "-m", "pip", "install", "--quiet", *cell.options, *limits]
    subprocess.run([*pip, "-e", f"{root}[{cell.extras}]", *TESTING], check=True)
    if cell.without:
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *cell.without], check=True)
    return python


def versions(python: pathlib.Path) -> dict[str, str | None]:
    """Return the versions in an environment, by distribution; None for what is not there."""
    done = subprocess.run([python, "-c", _VERSIONS, *SHOWN], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run(root: pathlib.Path, python: pathlib.Path, tests: tuple[str, ...], processes: int) -> dict[str, object]:
    """Run tests in an environment.

    Args:
        root: The repository.
        python: Of the environment.
        tests: What pytest is given; empty for the whole default suite.
        processes: How many run at a time.

    Returns:
        The versions, what was run, how many tests passed, were skipped and failed, and the day.
    """
    # Whatever checkout an environment was made with, it is this one that is tested, in processes that tests start, too.
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        spread = ["-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder"] if processes > 1 else []
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *spread, *tests]
        subprocess.run(command, cwd=root, env=environment)
        counted = counts(report)
    return {"versions": versions(python), "tests": list(tests), **counted, "day": datetime.date.today().isoformat()}


def counts(report: pathlib.Path) -> dict[str, int]:
    """Return how many tests of a JUnit report passed, were skipped and failed."""
    suites = list(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    total, skipped, failed, broken = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    )
    return {"passed": total - skipped - failed - broken, "skipped": skipped, "failed": failed + broken}

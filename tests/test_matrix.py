"""The sets of versions, and the page that says which were run."""

import pathlib
import re
import sys
import tomllib

from tf_detreg.files import read_json
from tools.matrix import page, running
from tools.matrix.cells import CELLS, CHOSEN

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"


def test_the_page_is_what_the_results_say():
    text = PAGE.read_text(encoding="utf-8")
    assert page.filled(text, read_json(ROOT / "tools" / "matrix" / "results.json")) == text, (
        "python -m tools.matrix --page"
    )


def test_a_set_that_was_not_run_says_so():
    versions = dict.fromkeys(running.SHOWN) | {"python": "3.11.7", "tensorflow": "2.20.0"}
    found = {
        "versions": versions,
        "tests": ["tests/heads"],
        "passed": 7,
        "skipped": 1,
        "failed": 0,
        "day": "2026-01-02",
    }
    table = page.table({"oldest": found}).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert "3.11.7 | 2.20.0 | – " in table[2] and "`heads` | 7 | 1 | 0 | 2026-01-02" in table[2]
    assert all("not run by this command" in line for line in table[3:]) and len(table) == 2 + len(CELLS)


def test_tests_are_counted(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" skipped="2" failures="1" errors="1"/></testsuites>')
    assert running.counts(report) == {"passed": 5, "skipped": 2, "failed": 2}


def test_the_checkout_that_is_named_is_tested(tmp_path):
    """Whatever tf_detreg the environment has installed; here that is this one."""
    for name in ("one", "other"):
        folder = tmp_path / name
        (folder / "tf_detreg").mkdir(parents=True)
        (folder / "tf_detreg" / "__init__.py").write_text(f"name = {name!r}")
        code = "import tf_detreg; assert tf_detreg.name == sys.argv[1]"
        text = f"import subprocess, sys\ndef test():\n    subprocess.run([sys.executable, '-c', 'import sys; {code}', "
        (folder / "test_it.py").write_text(f"{text}'one'], check=True, cwd='/')")
    counted = [
        running.run(tmp_path / name, pathlib.Path(sys.executable), ("test_it.py",), 1) for name in ("one", "other")
    ]
    assert [(found["passed"], found["failed"]) for found in counted] == [(1, 0), (0, 1)]


def test_every_set_names_what_is_there():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for cell in CELLS.values():
        assert cell.extras in extras
        assert cell.constraints is None or (ROOT / cell.constraints).is_file()
    assert all((ROOT / test).exists() for test in CHOSEN)


def test_the_oldest_versions_are_those_that_the_package_allows():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    oldest = dict(
        line.split("==")
        for line in (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").split()
        if "==" in line
    )
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cli"], *extras["report"], *extras["flows"], *extras["parquet"]]
    for requirement in asked:
        name, least = re.match(r"([\w-]+)[><~=]+([\d.]+)", requirement).groups()
        numbers = [int(part) for part in least.split(".")]
        # Where that very release is not there, the first one after it.
        assert [int(part) for part in oldest[name].split(".")][: len(numbers)] >= numbers, requirement
        assert oldest[name].split(".")[0] in (least.split(".")[0], str(numbers[0] + 1)), requirement

"""The examples in the docstrings of the modules at the top, of the recipes and of the command line run as printed."""

import pytest

from tests import docstrings

# Their tests give the examples names that they take as given.
ELSEWHERE = ("export", "heads", "losses", "regularizers", "retrieval")


@pytest.mark.parametrize("name", [*docstrings.modules(), *docstrings.modules("cli", "recipes")])
def test_the_examples_of_a_module_run(name, tmp_path):
    docstrings.check(name, tmp_path)


def test_no_package_is_left_out():
    packages = {
        file.parent.name for file in (docstrings.ROOT / "tf_detreg").glob("*/*.py") if ">>> " in file.read_text("utf-8")
    }
    for package in packages - {"cli", "recipes"}:
        folder = docstrings.ROOT / "tests" / package
        tests = "".join(file.read_text("utf-8") for file in folder.glob("test_*.py"))
        assert ("doctest.testmod" if package in ELSEWHERE else "docstrings.check") in tests, package

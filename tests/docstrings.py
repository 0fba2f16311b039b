"""The examples in the docstrings of a package's modules, as test cases."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def modules(*folders: str) -> list[str]:
    """Names of the modules with examples below some folders of the package; without one, of those at the top."""
    files = [file for folder in folders for file in (ROOT / "tf_detreg" / folder).rglob("*.py")]
    files = files if folders else [*(ROOT / "tf_detreg").glob("*.py")]
    return sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if ">>> " in file.read_text(encoding="utf-8")
    )


def check(name: str, folder: pathlib.Path) -> None:
    """Run the examples of a module in a folder."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("tf_detreg"):
            raise
        pytest.skip(f"the extra with {missing.name} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = doctest.testmod(module)
    assert found.attempted and not found.failed

"""The tag of a release, and what stands against it."""

import pathlib
import re
import tomllib

from tools.release import building


def version(root: pathlib.Path) -> str:
    """Return the version in pyproject.toml."""
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["version"]


def refusals(root: pathlib.Path, repository: str) -> list[str]:
    """Return why the last commit cannot be tagged with the version in its pyproject.toml, a sentence each.

    Args:
        root: The repository.
        repository: The address that links lead to.
    """
    now = version(root)
    found = [*_elsewhere(root, now)]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", changes, re.MULTILINE)
    if not headings or not re.fullmatch(rf"{re.escape(now)} \(\d{{4}}-\d\d-\d\d\)", headings[0]):
        found.append(f"CHANGELOG.md must begin with the heading '## {now} (YYYY-MM-DD)'.")
    if building.git(root, "status", "--porcelain"):
        found.append("There are uncommitted changes.")
    if building.git(root, "tag", "--list", f"v{now}"):
        found.append(f"v{now} is tagged already.")
    if not repository:
        found.append("A release needs --repository, the https address that its links lead to.")
    return found


def tag(root: pathlib.Path) -> str:
    """Tag the last commit with the version, and return the tag's name."""
    name = f"v{version(root)}"
    building.git(root, "tag", "-a", name, "-m", f"tf_detreg {name[1:]}")
    return name


def _elsewhere(root: pathlib.Path, now: str) -> list[str]:
    """Return the files that state another version."""
    stated = {"tf_detreg/__init__.py": r'^__version__ = "(.+)"$', "CITATION.cff": r"^version: (.+)$"}
    wrong = []
    for name, pattern in stated.items():
        found = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        if found is None or found[1] != now:
            wrong.append(f"pyproject.toml says {now}, and {name} {found[1] if found else 'no version'}.")
    return wrong

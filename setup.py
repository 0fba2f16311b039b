"""What the metadata in pyproject.toml cannot say: addresses, which depend on where the repository is published.

`tools/release` sets `TF_DETREG_REPOSITORY` to that address. Without it the README keeps its relative links.
"""

import os
import pathlib
import re
import tomllib

from setuptools import setup

HERE = pathlib.Path(__file__).parent
REPOSITORY = os.environ.get("TF_DETREG_REPOSITORY", "").rstrip("/")


def absolute(text: str, address: str, tag: str) -> str:
    """Return Markdown whose relative links lead into the repository at a tag, as a package index needs them."""

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({address}/{kind}/{tag}/{found[3]})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)", link, text)


def addresses(version: str) -> dict[str, str]:
    """Return the project's addresses by name."""
    pages = {"Documentation": "tree/{}/docs", "Changelog": "blob/{}/CHANGELOG.md"}
    return {
        "Source": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        **{name: f"{REPOSITORY}/{page.format(f'v{version}')}" for name, page in pages.items()},
    }


def main() -> None:
    """Hand the README and the addresses to setuptools."""
    with (HERE / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=absolute(readme, REPOSITORY, f"v{version}") if REPOSITORY else readme,
        long_description_content_type="text/markdown",
        project_urls=addresses(version) if REPOSITORY else {},
    )


if __name__ == "__main__":
    main()

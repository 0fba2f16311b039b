"""Writes the README with absolute links, for a package index, where relative ones lead nowhere.

    python -m tools.package_readme https://forge.example/owner/tf_detreg v0.2.0 --to build/README.md

Pages become `ADDRESS/blob/TAG/PATH`, pictures `ADDRESS/raw/TAG/PATH`: what GitHub, GitLab (with `/-`) and Forgejo
call them.
The release sets `readme` in pyproject.toml to the written file.
"""

import argparse
import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def absolute(text: str, address: str, tag: str) -> str:
    """Return the text with each relative link as a link into the repository at that tag.

    Example:
        >>> absolute("[a](docs/a.md#b) ![c](d.png)", "https://x/y", "v1")
        '[a](https://x/y/blob/v1/docs/a.md#b) ![c](https://x/y/raw/v1/d.png)'
    """

    def replace(match: re.Match[str]) -> str:
        picture, words, path = match.groups()
        return f"{picture}[{words}]({address.rstrip('/')}/{'raw' if picture else 'blob'}/{tag}/{path})"

    return LINK.sub(replace, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the repository, without the tag")
    parser.add_argument("tag")
    parser.add_argument("--to", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text(absolute(README.read_text(encoding="utf-8"), options.address, options.tag), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Hooks of the site (mkdocs.yml): pages that are not in docs/, and links to files outside of it.

- The README is the home page; the changelog and CONTRIBUTING are pages too.
- A package's API page has every public name, with its docstring and source. One without a docstring stops the build.
- Pages of losses follow the folder.
- Links out of docs/ to other files of the repository become plain text: the site has no copy of them.
"""

import ast
import pathlib
import re
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from tools.public_api import PACKAGE, exported, names_of

ROOT = pathlib.Path(__file__).parents[1]
OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def packages() -> list[str]:
    """Return the public packages, as `tf_detreg.__all__` has them."""
    return [name for name in exported(PACKAGE) or () if name != "load"]


def undocumented() -> list[str]:
    """Return the public names that have no docstring, those of constants aside."""
    return [
        name
        for name, found in names_of(PACKAGE)
        if isinstance(found.node, ast.FunctionDef | ast.ClassDef) and not ast.get_docstring(found.node)
    ]


def api_page(package: str) -> str:
    """Return the page of a package: its docstring's place, then each public name from where it is defined."""
    lines = [f"# {package}", "", f"`import tf_detreg as dr`, then `dr.{package}`.", ""]
    for name, found in names_of(f"{PACKAGE}.{package}"):
        if isinstance(found.node, ast.FunctionDef | ast.ClassDef):
            lines += [f"## {name} {{ #{name} }}", "", f"::: {found.module}.{found.node.name}", ""]
            lines += ["    options:", "      show_root_heading: false", "      show_root_toc_entry: false", ""]
    return "\n".join(lines)


def on_config(config: Any) -> Any:
    """Put the pages of losses and packages into the navigation."""
    losses = sorted(path.name for path in (ROOT / "docs" / "losses").glob("*.md") if path.name != "README.md")
    found = {
        "losses": ["losses/README.md", *(f"losses/{name}" for name in losses)],
        "api": [f"api/{name}.md" for name in packages()],
    }
    for entry in config.nav:
        for title, target in entry.items():
            if isinstance(target, str) and target in found:
                entry[title] = found[target]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    missing = undocumented()
    if missing:
        raise PluginError(f"Public names without a docstring: {', '.join(missing)}.")
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in packages():
        files.append(File.generated(config, f"api/{name}.md", content=api_page(name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links where the site has the file; leave the words alone where it has not."""
    uri = page.file.src_uri
    outside = {target: source for source, target in OUTSIDE.items()}.get(uri)
    folder = ROOT if outside else (ROOT / "docs" / uri).parent

    def replace(match: re.Match[str]) -> str:
        picture, words, path, anchor = match.groups()
        target = (folder / path).resolve()
        depth = "../" * uri.count("/")
        if target.is_relative_to(ROOT / "docs"):
            inside = target.relative_to(ROOT / "docs").as_posix()
        else:
            inside = OUTSIDE.get(target.relative_to(ROOT).as_posix(), "") if target.is_relative_to(ROOT) else ""
        if not inside or target.suffix == ".py" or target.is_dir():
            return words
        return f"{picture}[{words}]({depth}{inside}{anchor or ''})"

    return LINK.sub(replace, markdown)

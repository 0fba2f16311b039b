"""Write the list of every public name of the package with its signature: `python -m tools.public_api`.

The list is read from the source, so that it says what the source says, whatever the versions of other packages are. A
name is public where the `__all__` of a package has it, or, in a package whose `__all__` names modules, where a module
defines it without an underscore; so are the methods, properties and fields of public classes.
"""

import ast
import copy
import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "data" / "public_api.txt"
PACKAGE = "tf_detreg"

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Defined(NamedTuple):
    """Where something is defined, and its node."""

    module: str
    node: Definition


@functools.cache
def tree(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    path = ROOT / pathlib.Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text(encoding="utf-8"))


def is_module(name: str) -> bool:
    """Return whether a dotted name is a module or package here."""
    path = ROOT / pathlib.Path(*name.split("."))
    return (path / "__init__.py").is_file() or path.with_suffix(".py").is_file()


def exported(module: str) -> list[str] | None:
    """Return the `__all__` of a module, or None where it has none."""
    values: dict[str, list[str]] = {}
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            items = []
            for each in getattr(node.value, "elts", ()):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    items.append(each.value)
                elif isinstance(each, ast.Starred) and isinstance(each.value, ast.Name):
                    items += values.get(each.value.id, [])
            values[node.targets[0].id] = items
    return values.get("__all__")


def find(module: str, name: str) -> Defined | str | None:
    """Return the definition of a name of a module, following imports; a module's name where the name is a module."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return Defined(module, node)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return Defined(module, node)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return Defined(module, node)
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            for each in node.names:
                if (each.asname or each.name) == name:
                    inside = f"{node.module}.{each.name}"
                    return inside if is_module(inside) else find(str(node.module), each.name)
    return f"{module}.{name}" if is_module(f"{module}.{name}") else None


def arguments(node: ast.FunctionDef, bound: bool) -> str:
    """Return the parameters of a function as written, without `self`, and what it returns."""
    args = copy.deepcopy(node.args)
    if bound:
        (args.posonlyargs or args.args)[:1] = []
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(args)}){returned}"


def decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Return the last words of a definition's decorators."""
    return {ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in node.decorator_list}


def lineage(defined: Defined) -> Iterator[Defined]:
    """Yield a class and its bases inside the package, nearest first."""
    yield defined
    assert isinstance(defined.node, ast.ClassDef)
    for base in defined.node.bases:
        found = find(defined.module, ast.unparse(base).partition("[")[0])
        if isinstance(found, Defined) and isinstance(found.node, ast.ClassDef):
            yield from lineage(found)


def constructor(defined: Defined) -> str:
    """Return the parameters of a class: of its `__init__`, or the fields of a dataclass or named tuple."""
    for each in lineage(defined):
        assert isinstance(each.node, ast.ClassDef)
        for node in each.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return arguments(node, bound=True)
        named = any(ast.unparse(base).endswith("NamedTuple") for base in each.node.bases)
        if named or "dataclass" in decorators(each.node):
            chain = [each, *list(lineage(each))[1:]]
            fields = [
                ast.unparse(node)
                for one in reversed(chain)
                for node in one.node.body  # type: ignore[union-attr]  # a lineage holds classes alone
                if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_")
            ]
            return f"({', '.join(fields)})"
    return "()"


def members(defined: Defined, public: set[int]) -> Iterator[str]:
    """Yield the lines of a class's public methods and properties.

    Args:
        defined: The class.
        public: `id` of the nodes that are listed themselves. What comes from another one of these is left out here.
    """
    seen = set()
    for each in lineage(defined):
        assert isinstance(each.node, ast.ClassDef)
        if id(each.node) in public and each.node is not defined.node:
            return
        for node in each.node.body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or node.name in seen:
                continue
            seen.add(node.name)
            kinds = decorators(node)
            if kinds & {"property", "cached_property"}:
                yield f".{node.name}: {ast.unparse(node.returns) if node.returns else '?'}"
            else:
                yield f".{node.name}{arguments(node, bound='staticmethod' not in kinds)}"


def lines(name: str, found: Defined, public: set[int]) -> Iterator[str]:
    """Yield the lines of one public name."""
    if isinstance(found.node, ast.ClassDef):
        yield f"{name}{constructor(found)}"
        yield from sorted(name + line for line in members(found, public))
    elif isinstance(found.node, ast.FunctionDef):
        yield f"{name}{arguments(found.node, bound=False)}"
    elif isinstance(found.node, ast.AnnAssign):
        yield f"{name}: {ast.unparse(found.node.annotation)}"
    else:
        yield f"{name} = ..."


def names_of(module: str) -> Iterator[tuple[str, Defined]]:
    """Yield a module's public names, without that of the package in front, and what they are."""
    names = exported(module)
    if names is None:
        nodes = [node for node in tree(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        names = [node.name for node in nodes if not node.name.startswith("_")]
    for name in sorted(names):
        found = find(module, name)
        if found is None:
            raise LookupError(f"{module}.{name} is exported, but defined nowhere.")
        if isinstance(found, str):
            yield from names_of(found)
        else:
            yield f"{module}.{name}".removeprefix(f"{PACKAGE}."), found


def text() -> str:
    """Return the whole list."""
    listed = list(names_of(PACKAGE))
    public = {id(found.node) for _, found in listed}
    return "\n".join(line for name, found in listed for line in lines(name, found, public)) + "\n"


if __name__ == "__main__":
    LIST.write_text(text(), encoding="utf-8")
    print(f"{len(text().splitlines())} lines in {LIST.relative_to(ROOT)}")

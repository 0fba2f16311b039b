"""Single faults that a tired programmer could make, as edits of the source text."""

import ast
import dataclasses
import itertools
import pathlib
import random
from collections.abc import Collection, Iterator

_COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
}
_NAMES = {
    "max": "min",
    "min": "max",
    "any": "all",
    "all": "any",
    "maximum": "minimum",
    "minimum": "maximum",
    "reduce_max": "reduce_min",
    "reduce_min": "reduce_max",
    "reduce_mean": "reduce_sum",
    "reduce_sum": "reduce_mean",
    "reduce_any": "reduce_all",
    "reduce_all": "reduce_any",
    "mean": "sum",
    "argmax": "argmin",
    "argmin": "argmax",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
}
_WRAPPERS = (
    "abs",
    "sorted",
    "exp",
    "log",
    "sqrt",
    "square",
    "stop_gradient",
    "l2_normalize",
    "set",
    "int",
    "reversed",
    "softplus",
)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault: the text between two offsets of a file is replaced.

    Args:
        path: The file, relative to the project.
        line: Its first line, from 1.
        kind: What was done.
        start: Offset of the first character that is replaced.
        end: Offset behind the last one.
        text: What stands there instead.
    """

    path: str
    line: int
    kind: str
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        """Return the source with the fault in it."""
        return source[: self.start] + self.text + source[self.end :]


def mutants(path: str, source: str) -> list[Mutant]:
    """List every fault that can be planted in a file, in the order of its text.

    Annotations, docstrings, messages of exceptions and the entries of `__all__` are left alone: no test should
    depend on them.
    """
    return [mutant for mutant in _edited(path, source) if _compiles(mutant, source)]


def _edited(path: str, source: str) -> list[Mutant]:
    """List the faults, those that do not compile among them: to try that takes most of the time."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = source.encode()

    def offset(line: int, column: int) -> int:
        return len(raw[: starts[line - 1] + column].decode())

    found = []
    for node in _live_nodes(tree):
        for kind, (first, last), text in _edits(node, source, offset):
            found.append(Mutant(path, source.count("\n", 0, first) + 1, kind, first, last, text))
    return sorted(set(found), key=lambda m: (m.start, m.end, m.text))


def sample(root: pathlib.Path, count: int, seed: int, only: Collection[str] = ()) -> list[Mutant]:
    """Draw faults over all packages, in proportion to their size, but at least ten of each.

    Args:
        root: The project.
        count: How many in all, about.
        seed: Of the draw.
        only: Packages such as `losses`, or what the files' paths must begin with. Default: all.

    Returns:
        The faults, in the order of the draw.
    """
    packages: dict[str, list[tuple[Mutant, str]]] = {}
    for file in sorted((root / "tf_detreg").rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if only and not any(package_of(path) == one or path.startswith(one) for one in only):
            continue
        source = file.read_text(encoding="utf-8")
        packages.setdefault(package_of(path), []).extend((mutant, source) for mutant in _edited(path, source))
    total = sum(map(len, packages.values()))
    chosen = []
    for name, present in sorted(packages.items()):
        share = max(min(10, count), round(count * len(present) / max(total, 1)))
        order = random.Random(f"{seed} {name}").sample(present, len(present))
        chosen += itertools.islice((mutant for mutant, source in order if _compiles(mutant, source)), share)
    random.Random(seed).shuffle(chosen)
    return chosen


def package_of(path: str) -> str:
    """Return the package that a file belongs to; `tf_detreg` for the modules at the top.

    Example:
        >>> package_of("tf_detreg/losses/triplet.py"), package_of("tf_detreg/files.py")
        ('losses', 'tf_detreg')
    """
    parts = pathlib.PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 else parts[0]


def _live_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of annotations, what stands under `if TYPE_CHECKING`, exceptions' messages and `__all__`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if _is_for_types(node):
            continue
        yield node
        if isinstance(node, ast.Raise) or _is_all(node):
            continue
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            waiting += [
                child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)
            ]


def _is_for_types(node: ast.AST) -> bool:
    """Return whether a node is an `if TYPE_CHECKING`, whose imports no program runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_all(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)


def _edits(node: ast.AST, source: str, offset) -> Iterator[tuple[str, tuple[int, int], str]]:
    def span(child: ast.AST) -> tuple[int, int]:
        return offset(child.lineno, child.col_offset), offset(child.end_lineno, child.end_col_offset)

    def text(child: ast.AST) -> str:
        first, last = span(child)
        return source[first:last]

    def between(left: ast.AST, right: ast.AST, old: str, new: str):
        first, last = span(left)[1], span(right)[0]
        place = source.find(old, first, last)
        return None if place < 0 else ((place, place + len(old)), new)

    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        edit = between(node.left, node.comparators[0], *_COMPARISONS[type(node.ops[0])])
        if edit:
            yield "comparison", *edit
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not isinstance(node.left, ast.JoinedStr):
        edit = between(node.left, node.right, *_ARITHMETIC[type(node.op)])
        if edit:
            yield "arithmetic", *edit
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        yield "condition dropped", span(node), f"({text(node.left)})"
        yield "condition dropped", span(node), f"({text(node.right)})"
    elif isinstance(node, ast.BoolOp):
        for place in range(len(node.values)):
            kept = [text(value) for index, value in enumerate(node.values) if index != place]
            joined = " and " if isinstance(node.op, ast.And) else " or "
            yield "condition dropped", span(node), "(" + joined.join(f"({part})" for part in kept) + ")"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield "sign or negation dropped", span(node), f"({text(node.operand)})"
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Constant):
        yield "test negated", span(node.test), f"(not ({text(node.test)}))"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "truth value", span(node), str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and abs(node.value) <= 2:
        # Larger numbers are mostly limits and sizes, which a fault of one does not change.
        yield "number", span(node), f"({node.value!r} + 1)"
    elif isinstance(node, ast.Call):
        yield from _call_edits(node, span, text)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "statement dropped", span(node), "None"
    elif isinstance(node, ast.Break | ast.Continue):
        yield "statement dropped", span(node), "pass"
    elif isinstance(node, ast.Try) and len(node.finalbody) > 1:
        yield "statement dropped", (span(node.finalbody[0])[0], span(node.finalbody[-1])[1]), "pass"
    for key in _keys(node):
        if text(key) == f'"{key.value}"':
            yield "key", span(key), f'"{key.value}_"'
    for default in _large_defaults(node):
        yield "default", span(default), f"({text(default)} * 2)"


def _keys(node: ast.AST) -> list[ast.Constant]:
    """List the names under which a node writes or reads a value of a mapping."""
    found = node.keys if isinstance(node, ast.Dict) else [node.slice] if isinstance(node, ast.Subscript) else []
    return [key for key in found if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _large_defaults(node: ast.AST) -> list[ast.Constant]:
    """List the numbers that a function's arguments or a class' fields have by default, but those that are small.

    The small ones are planted as numbers.
    """
    found = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        found = [*node.args.defaults, *node.args.kw_defaults]
    elif isinstance(node, ast.ClassDef):
        found = [field.value for field in node.body if isinstance(field, ast.AnnAssign)]
    numbers = [value for value in found if isinstance(value, ast.Constant) and isinstance(value.value, int | float)]
    return [number for number in numbers if abs(number.value) > 2]


def _call_edits(node: ast.Call, span, text) -> Iterator[tuple[str, tuple[int, int], str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _NAMES:
        last = span(node.func)[1]
        yield "function", (last - len(name), last), _NAMES[name]
    if name in _WRAPPERS and len(node.args) == 1 and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
        yield "call dropped", span(node), f"({text(node.args[0])})"
    given = sorted([*node.args, *node.keywords], key=lambda part: span(part)[0])
    for number, part in enumerate(given):
        if isinstance(part, ast.keyword) and part.arg is not None:
            before = span(given[number - 1])[1] if number else span(part)[0]
            after = span(given[1])[0] if not number and len(given) > 1 else span(part)[1]
            yield "argument dropped", (before, after), ""


def _compiles(mutant: Mutant, source: str) -> bool:
    try:
        compile(mutant.apply(source), mutant.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True

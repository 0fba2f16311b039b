"""Every name of ours in the migration guides exists, and takes the arguments that the guide shows."""

import ast
import importlib
import inspect
import pathlib
import re

import keras
import pytest

import tf_detreg

PAGES = sorted((pathlib.Path(__file__).parents[1] / "docs" / "migration").glob("*.md"))
# What the tables read off a report; see `retrieval.RetrievalReport`.
REPORT = {"report.recall[1]", "report.map_at_r", "report.metrics", "matches.accepted"}
PACKAGES = set(tf_detreg.__all__)


def rows(page):
    """(line, cells) of every row below a header that has a column `here`, and that column's number."""
    here = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            here = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if "here" in cells:
            here, width = cells.index("here"), len(cells)
        elif here is not None and not set(line) <= set("|- "):
            assert len(cells) == width, f"{page.name}:{number} has {len(cells)} cells"
            yield f"{page.name}:{number}", cells[here]


EXPRESSIONS = [
    pytest.param(text, id=f"{where} {text}")
    for page in PAGES
    for where, cell in rows(page)
    for text in re.findall(r"`([^`]+)`", cell)
    if text not in REPORT and not text.startswith(("tf-detreg", '"'))
]


def resolve(node):
    """The object behind `losses.Triplet` or `keras.optimizers.AdamW`."""
    if isinstance(node, ast.Name):
        if node.id == "keras":
            return keras
        assert node.id in PACKAGES, f"tf_detreg has no {node.id}"
        return importlib.import_module(f"tf_detreg.{node.id}")
    return getattr(resolve(node.value), node.attr)


def check(node):
    """Every name in the expression is there, and every call fits its signature."""
    if isinstance(node, ast.Attribute):
        resolve(node)
    if not isinstance(node, ast.Call):
        return
    target = resolve(node.func)
    given = [object()] * len(node.args)
    if inspect.isfunction(target) and next(iter(inspect.signature(target).parameters)) == "self":
        given.insert(0, object())
    inspect.signature(target).bind(*given, **{keyword.arg: object() for keyword in node.keywords})
    for child in [*node.args, *(keyword.value for keyword in node.keywords)]:
        if isinstance(child, ast.Call):
            check(child)
    # What stands in the guide with values alone is also built, so that wrong values are seen, too.
    if inspect.isclass(target) and target.__module__.startswith(("tf_detreg.losses", "tf_detreg.miners")):
        eval(ast.unparse(node), {"losses": tf_detreg.losses, "miners": tf_detreg.miners, "n": 3, "d": 4})


def test_the_guides_have_tables():
    assert len(PAGES) == 6 and len(EXPRESSIONS) > 60


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_name_in_a_guide_is_there(text):
    check(ast.parse(text, mode="eval").body)


def test_a_wrong_name_or_argument_would_be_seen():
    for text, error in [("losses.Tripled()", AttributeError), ("losses.Triplet(margins=1)", TypeError)]:
        with pytest.raises(error):
            check(ast.parse(text, mode="eval").body)

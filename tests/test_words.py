"""The words of docs/glossary.md: what the package, its messages and its pages say, and what they no longer say."""

import ast
import pathlib
import re

import pytest

import tf_detreg
from tools.words import BRITISH, retired

PACKAGE = pathlib.Path(tf_detreg.__file__).parent
ROOT = PACKAGE.parent
# Where one of them must stand: names of version 0.1 that still work.
ALLOWED = {
    "tf_detreg/analysis/__init__.py": {"neighbours"},
    "tf_detreg/analysis/neighbours.py": {"neighbours"},
    "tf_detreg/retrieval/matches.py": {"neighbour_recall"},
    "tf_detreg/export/bundles.py": {"neighbour_recall"},
    "tf_detreg/export/cards.py": {"licence"},
    "tf_detreg/cli/publish.py": {"licence"},
    "tf_detreg/deprecated.py": {"licence", "neighbour_recall"},
    "tf_detreg/serving/search.py": {"neighbours"},
}
LIST = ROOT / "tools" / "words.py"
ENDINGS = {".py", ".md", ".toml", ".html", ".js", ".css"}


def texts():
    """Every file whose words are held to the glossary: the package, the pages, examples and studies."""
    for folder in ("tf_detreg", "docs", "examples", "studies", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in ENDINGS and path != LIST and "node_modules" not in path.parts:
                yield path
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"))


def test_retired_words_stay_out():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word!r}"
        for path in sorted(texts())
        for word, line in retired(path.read_text(encoding="utf-8"))
        if word.lower() not in ALLOWED.get(path.relative_to(ROOT).as_posix(), ())
    ]
    assert not found, "Retired words (docs/glossary.md says what to write):\n" + "\n".join(found)


def test_the_package_is_spelled_as_in_america():
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}: {word}"
        for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml")])
        for word in BRITISH.findall(path.read_text(encoding="utf-8"))
    }
    assert found == {"export/verification.py: artefact"}, "a name of version 0.1 alone"


@pytest.mark.parametrize(
    "text",
    [
        "Loads what this room holds.",
        "a net from nothing",
        "The backbone learns on.",
        "a query without a Right Answer",
        "lone queries",
        "nearest neighbours",
        "its class mates",
        "the shape of the house",
    ],
)
def test_one_that_is_put_back_is_noticed(text):
    assert len(retired(f"line one\n{text}\n")) == 1 and retired(f"line one\n{text}")[0][1] == 2


def test_ordinary_words_are_no_retired_ones():
    for text in ("alone", "automate", "clone", "mushrooms", "estimates", "center", "learn one thing", "broader"):
        assert not retired(text)


def test_the_allowed_ones_are_still_there():
    for name, words in ALLOWED.items():
        said = {word.lower() for word, _ in retired((ROOT / name).read_text(encoding="utf-8"))}
        assert words <= said, name


def test_docstrings_of_functions_begin_with_a_verb():
    """Ruff (D401, D415) sees most of it; these beginnings it lets pass."""
    nouns = re.compile(
        r"(?:The|A|An|What|How|Whether|One|All|Every|Each|Some|Which|Where|Of|From|Like|As|Why)\b|[(`\[0-9]"
    )
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or "Return.").partition("\n\n")[0]
                if nouns.match(first) or not first.endswith((".", ":", "::", "?")):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {first[:70]}")
    assert not wrong, "\n".join(wrong)


def test_a_second_verb_is_in_the_form_of_the_first():
    """ "Make a folder, and keep others out", not "and keeps"."""
    second = re.compile(
        r"^[A-Z]\w+[^.;]*(?:,? and|;) (?:keeps|leaves|removes|returns|stops|yields|logs|writes|raises|gives|makes|"
        r"takes|puts|adds|sets|reads|counts|saves|starts|names) (?!no\b)"
    )
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
                if second.match(first):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {first[:90]}")
    assert not wrong, "\n".join(wrong)


def test_defaults_are_stated_in_one_form():
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        other = re.search(r"\b[Dd]efaults\s+to\b|\b[Dd]efault\s+`(-?[\d.]|None\b|True\b|False\b)", text)
        assert not other, f"{path}: write `Default 12.` in place of {other[0]!r}"


SECTION = re.compile(r"( *)(Args|Call arguments|Attributes|Raises|Returns|Yields):")
ARGUMENT = re.compile(r" *\*{0,2}[A-Za-z_][\w.]*(?:, \*{0,2}[A-Za-z_]\w*)*: (.*)")
# What keeps its small letter: the symbols of an equation, types, and what belongs to a program of that name.
SYMBOLS = re.compile(r"(?!a )\w[⁺⁻]?\W|\w*\d|bool\b|uvicorn's")


def descriptions(source):
    """Yield line number and text of each description of an argument, an attribute, a result or an error."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is None:
            continue
        section, depth = "", 0
        for number, line in enumerate(ast.get_source_segment(source, node.body[0]).split("\n"), node.body[0].lineno):
            indent = len(line) - len(line.lstrip())
            if begun := SECTION.fullmatch(line):
                section, depth = begun[2], indent
            elif section and line.strip() and indent <= depth:
                section = ""
            elif section and indent == depth + 4:
                named = ARGUMENT.fullmatch(line)
                if section in ("Returns", "Yields"):
                    yield number, line.strip()
                    section = ""
                elif named:
                    yield number, named[1]


def small_letters(source):
    """Return the descriptions that begin with a small letter, which only what is written so everywhere may have."""
    return [(line, text) for line, text in descriptions(source) if text[:1].islower() and not SYMBOLS.match(text)]


def test_descriptions_of_arguments_begin_with_a_capital():
    wrong, count = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        count += len(list(descriptions(source)))
        wrong += [f"{path.relative_to(ROOT)}:{line}: {text[:70]}" for line, text in small_letters(source)]
    assert not wrong, "\n".join(wrong)
    assert count > 2500


PLANTED = '''
class Loss:
    """Compute a loss.

    Args:
        margin: {margin}
            goes on in a small letter.
        *others: More.

    Call arguments:
        x, y: {pair}

    Raises:
        ValueError: {error}

    Example:
        name: not one of them.
    """

    def call(self):
        """Return it.

        Returns:
            {result}
            of all.
        """
'''
FINE = {"margin": "m, in radians.", "pair": "float32 `(B,)`.", "error": "If not.", "result": "A number."}


@pytest.mark.parametrize(
    "wrong", [{"margin": "the margin."}, {"pair": "a pair."}, {"error": "without it."}, {"result": "the loss"}]
)
def test_a_description_with_a_small_letter_is_noticed(wrong):
    assert not small_letters(PLANTED.format(**FINE)) and len(list(descriptions(PLANTED.format(**FINE)))) == 5
    assert [text for _, text in small_letters(PLANTED.format(**FINE | wrong))] == list(wrong.values())

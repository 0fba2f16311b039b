"""Every public name with its signature is checked in, and the same thing is called the same everywhere."""

import difflib
import inspect
import re

import pytest

import tf_detreg
from tools import public_api

LINES = public_api.text().splitlines()


def test_the_list_of_public_names_is_up_to_date():
    listed = public_api.LIST.read_text(encoding="utf-8").splitlines()
    changes = "\n".join(difflib.unified_diff(listed, LINES, "checked in", "in the source", lineterm="", n=0))
    assert not changes, (
        f"The public surface changed. If it should, write the list: python -m tools.public_api\n{changes}"
    )


def test_the_list_sees_a_changed_signature(monkeypatch):
    real = public_api.tree

    def changed(module):
        tree = real(module)
        if module != "tf_detreg.retrieval.find":
            return tree
        return public_api.ast.parse(public_api.ast.unparse(tree).replace("k: int=10", "most: int=10"))

    monkeypatch.setattr(public_api, "tree", changed)
    assert sum("most: int=10" in line for line in public_api.text().splitlines()) == 1


def test_every_listed_name_is_there():
    for line in LINES:
        thing = tf_detreg
        for part in re.match(r"[\w.]+", line)[0].split("."):
            if inspect.isclass(thing) and not hasattr(thing, part):
                assert part in getattr(thing, "__annotations__", {}), line
                break
            thing = getattr(thing, part)


def test_what_reports_have_is_of_one_kind():
    kinds = {
        "summary": r"\(\) -> str",
        "to_json": r"\(\) -> str",
        "to_markdown": r"\(\) -> str",
        "to_dict": r"\(\) -> dict\[str, .*\]",
    }
    seen = set()
    for line in LINES:
        name, rest = re.fullmatch(r"[\w.]*?(\w+)((?:\(|:| =).*)", line).groups()
        if name in kinds and line.count(".", 0, line.index(rest)) >= 2:
            assert re.fullmatch(kinds[name], rest), line
            seen.add(name)
    assert seen == set(kinds)


def test_progress_is_shown_in_a_terminal_everywhere():
    shown = [line for line in LINES if re.search(r"\bprogress\b", line)]
    assert len(shown) > 8
    for line in shown:
        assert "progress: bool | None=None" in line, line


def test_signatures_say_what_they_take():
    """Keras' own methods hand arguments on; a constructor of ours names each."""
    for line in LINES:
        name, arguments = line.partition("(")[::2]
        if re.fullmatch(r"\w+\.[A-Z]\w*", name):
            assert "*" not in re.sub(r"\*, ", "", arguments), line


@pytest.mark.parametrize("word", ["centre", "neighbour", "licence", "colour", "artefact", "grey"])
def test_identifiers_have_american_spelling(word):
    assert not [line for line in LINES if word in line.lower()]


def test_folders_are_called_directory():
    for line in LINES:
        assert not re.search(r"[(, ](folder|data_dir)\b:", line), line

"""The checker of the pages' English sees what it is for, and leaves code alone; `make english` runs it on the pages."""

import doctest
import json
import pathlib
import re

import pytest

from tools import english

PAGE = pathlib.Path("page.md")


def found(text):
    return [(fault.line, fault.text) for fault in english.own_faults(PAGE, english.prose(text))]


def test_a_planted_word_is_found_with_its_line():
    ((line, text),) = found("# Title\n\nOne line.\nA colour of it.\n")
    assert line == 4 and "color" in text
    ((line, text),) = found("The nearest neighbours.\n")
    assert line == 1 and "retired" in text


def test_code_tables_and_addresses_are_no_prose():
    text = "`colour` of [it](colour.md), https://colour.example\n\n| colour |\n\n```\ncolour\n```\n<!-- colour -->\n"
    assert not found(text)


def test_a_sentence_is_as_long_as_what_lies_between_two_marks():
    words = " ".join(["word"] * 20)
    assert not found(f"{words}: {words}; {words}. A {words}\n\n{words}\n")
    ((line, text),) = found(f"Short.\n\n- {words}\n  {words}.\n- {words}\n")
    assert line == 3 and text.startswith("40 words")


def test_numbers_are_no_words():
    assert english.count("adds −0.04 [−0.27, +0.20] points (12 %)") == 2


def test_every_check_that_is_off_has_its_reason():
    checks = json.loads(english.CONFIG.read_text(encoding="utf-8"))["checks"]
    assert {name for name, on in checks.items() if not on} == set(english.OFF)
    assert all(len(reason) > 20 for reason in english.OFF.values()) and sum(checks.values()) > 15


@pytest.mark.parametrize("page", english.pages(), ids=lambda path: path.name)
def test_pages_keep_to_the_words_and_to_short_sentences(page):
    text = english.prose(page.read_text(encoding="utf-8"))
    assert not [str(fault) for fault in english.own_faults(page, text)]


def test_it_is_run_in_ci_in_an_environment_that_has_proselint():
    root = english.ROOT
    assert re.search(r"make .* english", (root / ".ci" / "run").read_text(encoding="utf-8"))
    assert "\nproselint==" in (root / "constraints-docs.txt").read_text(encoding="utf-8")


def test_examples():
    assert doctest.testmod(english).failed == 0

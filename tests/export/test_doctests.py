"""The examples in the docstrings run."""

import doctest
import importlib

import pytest

MODULES = ("bundles", "cards", "lite", "releasing", "savedmodel", "verification")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(f"tf_detreg.export.{name}"))
    assert found.attempted
    assert not found.failed

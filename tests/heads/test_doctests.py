"""The examples in the docstrings of `tf_detreg.heads` and `tf_detreg.regularizers` run as printed."""

import doctest
import importlib
import pkgutil

import pytest
import tensorflow as tf

from tf_detreg import heads, regularizers

PACKAGES = (heads, regularizers)
MODULES = [
    f"{package.__name__}.{module.name}" for package in PACKAGES for module in pkgutil.iter_modules(package.__path__)
]


@pytest.mark.parametrize("name", [*MODULES, "tf_detreg.vectors"])
def test_examples(name):
    tf.random.set_seed(0)
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"tf": tf, "Context": regularizers.Context})
    assert not result.failed


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_class_has_an_example(package):
    without = {"Head", "FlowHead", "Regularizer", "Context"}  # bases, and what holds a step's parts
    for name in set(package.__all__) - without:
        assert ">>>" in getattr(package, name).__doc__, name

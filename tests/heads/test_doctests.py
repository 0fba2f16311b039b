"""The examples in the docstrings of `tf_detreg.heads` and what builds on it run as printed."""

import doctest
import importlib

import pytest
import tensorflow as tf

MODULES = [
    "heads.coupling",
    "heads.dueling",
    "heads.ffjord",
    "heads.glow",
    "heads.linear",
    "heads.measures",
    "heads.nice",
    "heads.real_nvp",
    "heads.residual_mlp",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    tf.random.set_seed(0)
    module = importlib.import_module(f"tf_detreg.{name}")
    result = doctest.testmod(module, extraglobs={"tf": tf})
    assert result.attempted and not result.failed

"""Docstring examples of losses and miners run, and the pages made of them are up to date."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tf_detreg import losses, miners

ROOT = Path(__file__).parents[2]
MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (losses, miners)
    for module in pkgutil.iter_modules(package.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    package = losses if ".losses." in name else miners
    results = doctest.testmod(importlib.import_module(name), extraglobs={**vars(package), "tf": tf})
    assert results.failed == 0


def test_every_loss_has_an_example():
    for name in losses.__all__:
        assert name in ("PairLoss", "ProxyLoss") or ">>>" in getattr(losses, name).__doc__, name


def test_pages_are_up_to_date():
    command = [sys.executable, "docs/generate_losses.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]

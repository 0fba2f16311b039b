"""Skips of tests whose optional package is not installed, or works beside another TensorFlow alone."""

import importlib.util

import pytest

from tf_detreg.retrieval import scann_library


def scann() -> None:
    """Skip where ScaNN is not installed."""
    if importlib.util.find_spec("scann") is None:
        pytest.skip("ScaNN is not installed", allow_module_level=True)


def usearch() -> None:
    """Skip where usearch is not installed."""
    if importlib.util.find_spec("usearch") is None:
        pytest.skip("usearch is not installed")


def scann_operations() -> None:
    """Skip where ScaNN's TensorFlow operations cannot be loaded."""
    try:
        scann_library.operations()
    except ImportError as error:
        pytest.skip(str(error))

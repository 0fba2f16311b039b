"""Damaged files: a sample of those that `python -m tests.images.fuzz` makes, and files that it found once."""

import pathlib

import pytest

from tests.images import fuzz, readers

FOUND = pathlib.Path(__file__).parents[1] / "data" / "images_fuzz"


@pytest.mark.parametrize("path", sorted(FOUND.iterdir()), ids=lambda path: path.name)
def test_what_was_found_once_is_read_by_none(path):
    content = path.read_bytes()
    assert readers.reference(content, fuzz.SIZE) is None
    assert readers.graphs([content], fuzz.SIZE) == [None]
    assert readers.trainings([str(path)], fuzz.SIZE) == [None]


def test_a_sample_of_damaged_files():
    assert fuzz.disagreements(300, seed=11) == {}

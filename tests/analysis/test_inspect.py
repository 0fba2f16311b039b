"""Findings behind the numbers: planted ones are found, and nothing else is."""

import doctest

import numpy as np
import pytest

from tf_detreg.analysis import inspect as module
from tf_detreg.analysis.inspect import _pair, _strips, inspect, sections
from tf_detreg.datasets import ImageSet


@pytest.fixture
def planted():
    """Ten tight classes of six in 32 dimensions, with one mislabelled copy and one pair of confused classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 6)
    centers = 3 * rng.standard_normal((10, 32))
    centers[9] = centers[8] + 0.15 * rng.standard_normal(32)
    points = centers[labels] + 0.4 * rng.standard_normal((60, 32))
    points[12] = points[0]  # class 2 holds a copy of an image of class 0
    return points, labels


def test_planted_findings_are_found(planted):
    found = inspect(*planted, k=8, show=5)
    assert 12 in found.hardest and found.first_rank[0] == 9
    assert {8, 9} == set(found.confused[:, :2].ravel()) - {0, 2}
    assert found.duplicates.tolist() == [[0, 12]] and found.across.tolist() == [True]


def test_a_planted_hub_is_found():
    rng = np.random.default_rng(1)
    points = rng.standard_normal((200, 400))
    points[7] = points.mean(axis=0) * 200
    found = inspect(points, np.arange(200) // 4, k=5)
    assert found.hubs[0] == 7 and found.occurrences[0] > 40
    assert found.skewness > 3


def test_a_perfect_embedding_has_nothing_to_find():
    labels = np.repeat(np.arange(5), 3)
    points = np.eye(5)[labels] + 0.05 * np.random.default_rng(2).standard_normal((15, 5))
    found = inspect(points, labels, k=4)
    assert len(found.hardest) == len(found.confused) == len(found.duplicates) == 0


def test_lone_images_are_not_hard():
    found = inspect([[1, 0], [0.9, 0.1], [0, 1]], [0, 0, 1], k=2)
    assert found.hardest.tolist() == []


def test_sections_show_thumbnails_and_escape_names(planted):
    points, labels = planted
    images = np.random.default_rng(3).integers(0, 255, (60, 6, 6, 3)).astype(np.uint8)
    page = "".join(
        s.fragment for s in sections(ImageSet(labels, [f"<{c}>" for c in "abcdefghij"], images=images), points)
    )
    assert page.count("data:image/png") > 20
    assert "&lt;a&gt;" in page and "<a>" not in page
    assert "different labels" in page


def test_a_confused_class_is_listed_with_the_number_of_its_images():
    images = ImageSet([0, 0, 0, 1, 2, 2], ["ant", "bee", "cat"], images=np.zeros((6, 2, 2, 3), np.uint8))
    names = np.asarray(images.class_names, object)
    assert _pair(images, names, 0, 2, 2) == {"class": "ant", "taken for": "cat", "images": 3, "mistaken": 2}
    assert _pair(images, names, 1, 0, 1) == {"class": "bee", "taken for": "ant", "images": 1, "mistaken": 1}
    assert _strips(images, names, np.array([[0, 1]])).count("data:image/png") == 4


def test_labels_must_fit():
    with pytest.raises(ValueError, match="one value for each of the 2 `embeddings`"):
        inspect(np.eye(2), [0])
    with pytest.raises(ValueError, match="two rows or more"):
        inspect([[1.0, 0.0]], [0])


def test_examples():
    assert doctest.testmod(module).failed == 0

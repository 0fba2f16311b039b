"""Ids as an address names them, and the pictures that are shown."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode
from tf_detreg.index.items import of_text
from tf_detreg.serving import gallery
from tf_detreg.serving.gallery import Gallery, jpeg


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        ({5}, "5", 5),
        ({"5"}, "5", "5"),
        ({5, "5"}, "5", "5"),  # the text is what was asked for
        ({-3}, "-3", -3),
        ({3}, "--3", "--3"),
        ({3}, "٣", "٣"),
        (set(), "5", "5"),
        ({10**20}, "1" + 20 * "0", "1" + 20 * "0"),
        ({"a"}, "a", "a"),
        ({7, 0}, "007", "007"),
        ({7, 0}, "-0", "-0"),
        ({70}, "7_0", "7_0"),
    ],
)
def test_a_text_of_digits_may_be_an_integer_id(there, asked, found):
    known = of_text(asked, there)
    assert known == found and type(known) is type(found)
    shown = Gallery.__new__(Gallery)
    shown.index, shown._numbers, shown._follow = there, {found: 8}, lambda: None
    assert shown.number(asked) == 8


def test_items_beyond_the_thumbnails_that_are_kept_have_pictures_too(index, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_THUMBNAILS", 5)
    shown = Gallery(index)
    assert sorted(shown._thumbnails) == [0, 1, 2, 3, 4]
    for item in (39, 0, 20):
        assert shown.facts(item)["picture"] and shown.thumbnail(item) == jpeg(
            index.metadata(f"item {item}")["path"], 240
        )
        assert len(shown._thumbnails) == 5 and item in shown._thumbnails
    assert 20 in [sample["item"] for sample in shown.samples(5)]


@pytest.mark.parametrize(
    ("size", "side", "shown"),
    [
        ((400, 300), 1000, (400, 300)),
        ((50, 40), 1000, (450, 360)),
        ((10, 5), 100, (100, 50)),
        ((80, 60), 100, (80, 60)),
    ],
)
def test_tiny_pictures_are_enlarged_by_whole_numbers(size, side, shown, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    (tmp_path / "x.png").write_bytes(encode(pixels))
    assert Image.open(io.BytesIO(jpeg(str(tmp_path / "x.png"), side))).size == shown

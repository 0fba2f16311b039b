import importlib
import logging
import pathlib
import sys
import unicodedata

import numpy as np
import pytest

from tf_detreg import datasets
from tf_detreg.datasets.cache import cache_folder

glyph_module = importlib.import_module("tf_detreg.datasets.glyphs")


@pytest.fixture(scope="module")
def whole():
    """Drawn once a machine: all tests share the user's cache."""
    return datasets.glyphs()


@pytest.fixture
def few_faces(monkeypatch, tmp_path):
    """Six small faces, so that drawing takes no time, and a cache of its own."""
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(glyph_module, "FACES", glyph_module.FACES[-6:])
    monkeypatch.setattr(glyph_module, "MIN_FACES", 5)
    return tmp_path / "cache"


def class_of(whole):
    return {name: (number, split) for split in whole for number, name in enumerate(split.class_names)}


def test_over_three_thousand_classes_of_at_least_eight_faces(whole):
    counts = np.concatenate([np.bincount(split.labels, minlength=split.num_classes) for split in whole])
    assert len(counts) > 3000 and counts.min() >= 8
    names = [name for split in whole for name in split.class_names]
    assert len(set(names)) == len(names)
    shares = [split.num_classes / len(counts) for split in whole]
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=0.001)
    assert whole.train.images.shape[1:] == (32, 32, 3) and whole.train.images.strides[-1] == 0
    assert set(np.unique(whole.test.groups)) == set(range(len(glyph_module.FAMILIES)))


def test_look_alikes_are_one_class(whole):
    names = class_of(whole)
    for capital in "ABEHIKMOPTX":
        assert f"LATIN CAPITAL LETTER {capital}" in names
    for twin in "ΑАΒВΕЕΟОΧХ":
        assert unicodedata.name(twin) not in names
    assert "LATIN CAPITAL LETTER B" in names and "DIGIT EIGHT" in names


def test_no_class_is_blank(whole):
    for split in whole:
        contrast = split.images[..., 0].astype(np.int16)
        darkest = contrast.reshape(len(split), -1).min(1)
        ground = np.median(contrast.reshape(len(split), -1), axis=1)
        assert np.quantile(ground - darkest, 0.001) > 40


def test_raw_pixels_are_neither_useless_nor_enough(whole):
    pixels = whole.test.images[..., 0].reshape(len(whole.test), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    hits = 0
    for start in range(0, len(pixels), 2000):
        scores = pixels[start : start + 2000] @ pixels.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -2
        hits += (whole.test.labels[scores.argmax(1)] == whole.test.labels[start : start + 2000]).sum()
    assert 0.10 < hits / len(pixels) < 0.60


def test_the_same_pixels_from_cache_and_anew(few_faces, caplog):
    first = datasets.glyphs(image_size=16)
    (file,) = few_faces.iterdir()
    again = datasets.glyphs(image_size=16)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    file.write_bytes(file.read_bytes()[:2000])
    with caplog.at_level(logging.WARNING):
        anew = datasets.glyphs(image_size=16)
    assert "damaged" in caplog.text
    for a, b in zip(first, anew, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        assert a.class_names == b.class_names
    other = datasets.glyphs(image_size=16, seed=1)
    assert other.test.class_names != first.test.class_names
    assert len(list(few_faces.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_obstacle(few_faces, caplog):
    few_faces.write_text("a file stands where the folder should be")
    assert len(datasets.glyphs(image_size=16).train)
    assert "could not be kept" in caplog.text


def test_characters_without_a_drawing_are_left_out(few_faces):
    font = glyph_module._font("cmr10", 20)
    assert glyph_module.mask(font, glyph_module._MISSING).size >= 0
    drawings = glyph_module._drawings()
    assert all(set(face) <= set(map(chr, range(128))) for face in drawings)


@pytest.mark.parametrize("size", [8, 200])
def test_sizes_out_of_range(size):
    with pytest.raises(ValueError, match="`image_size`"):
        datasets.glyphs(image_size=size)


def test_cache_folder_follows_the_platform(monkeypatch):
    monkeypatch.delenv("TF_DETREG_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == pathlib.Path("/somewhere/tf_detreg")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == pathlib.Path.home() / ".cache" / "tf_detreg"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == pathlib.Path.home() / "Library" / "Caches" / "tf_detreg"
    monkeypatch.setenv("TF_DETREG_CACHE", "/chosen")
    assert cache_folder() == pathlib.Path("/chosen")


def test_every_face_belongs_to_the_family_of_its_name():
    for file, family in glyph_module.FACES:
        wanted = glyph_module.FAMILIES[family].replace(" ", "")
        assert file.startswith(wanted) or (wanted == "ComputerModern" and file.startswith("cm"))
        assert not (file.startswith("DejaVuSansMono") and wanted == "DejaVuSans")


def test_each_face_draws_the_classes_that_it_has_by_their_first_character(monkeypatch):
    faces = [glyph_module.FACES[0], glyph_module.FACES[-1], glyph_module.FACES[0]]
    monkeypatch.setattr(glyph_module, "FACES", faces)
    monkeypatch.setattr(glyph_module, "_drawings", lambda: [dict.fromkeys(chars) for chars in ("ac", "bcd", "ad")])
    monkeypatch.setattr(glyph_module, "_classes", lambda drawings: list(map(frozenset, ("a", "bc", "d"))))
    drawn = []

    def draw(font, chars, size, rng):
        drawn.append("".join(chars))
        return np.full((len(chars), size, size), len(drawn), np.uint8)

    monkeypatch.setattr(glyph_module, "draw", draw)
    found = glyph_module._draw_all(8, seed=0)
    assert drawn == ["ac", "bd", "ad"]
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    # The number of the face that drew each, and its family.
    assert found.pixels[:, 0, 0, 0].tolist() == [1, 3, 1, 2, 2, 3]
    assert found.groups.tolist() == [faces[face][1] for face in (0, 2, 0, 1, 1, 2)]
    assert found.class_names == ("LATIN SMALL LETTER A", "LATIN SMALL LETTER B", "LATIN SMALL LETTER D")

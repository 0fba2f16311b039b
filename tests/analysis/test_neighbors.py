"""Pictures of neighbors: the right ones are found, marked, and drawn where they belong."""

import doctest
import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.axes import Axes
from PIL import Image

from tf_detreg.analysis import neighbors
from tf_detreg.datasets import ImageSet


@pytest.fixture
def coloured():
    """Six images in three classes; each image is flat in a grey of its own."""
    greys = np.array([0, 10, 100, 110, 200, 210], np.uint8)
    images = np.broadcast_to(greys[:, None, None], (6, 4, 4)).copy()
    return ImageSet(labels=[0, 0, 1, 1, 2, 2], class_names=["dark", "mid", "light <b>"], images=images)


@pytest.fixture
def embeddings():
    """On a circle; image 4 lies nearer to class 1 than to its positive."""
    angles = np.deg2rad([0, 5, 90, 95, 101, 180])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_query_never_finds_itself_and_mates_are_marked(coloured, embeddings):
    found = neighbors.within(coloured, embeddings, [0, 4], k=2)
    assert found.found[:, :, 0, 0, 0].tolist() == [[10, 100], [110, 100]]
    assert found.right.tolist() == [[True, False], [False, False]]
    assert found.query_names == ["dark", "light <b>"]


def test_twins_do_not_push_the_list_out_of_shape(coloured):
    same = np.tile(np.float32([[1, 0]]), (6, 1))
    found = neighbors.within(coloured, same, range(6), k=3)
    assert found.scores.shape == (6, 3)
    queries = found.queries[:, 0, 0, 0]
    assert not (found.found[:, :, 0, 0, 0] == queries[:, None]).any()


def test_a_query_is_searched_for_in_a_gallery(coloured, embeddings):
    gallery = coloured.subset([5, 0, 3])
    found = neighbors.across(coloured, embeddings, [1, 4], gallery, embeddings[[5, 0, 3]], k=2)
    assert found.found[:, :, 0, 0, 0].tolist() == [[0, 110], [110, 210]]
    assert found.right.tolist() == [[True, False], [False, True]]
    assert found.found_names == [["dark", "mid"], ["mid", "light <b>"]]


def test_names_are_escaped_in_html(coloured, embeddings):
    page = neighbors.within(coloured, embeddings, [4], k=1).to_html()
    assert "light &lt;b&gt;" in page and "<b>" not in page
    assert page.count("data:image/png;base64,") == 2


def test_the_picture_frames_right_and_wrong(coloured, embeddings, tmp_path):
    path = neighbors.within(coloured, embeddings, [0], k=2).save_png(tmp_path / "grid.png", tile=32)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    top = sheet[6]  # crosses the upper frames
    for colour in ((0x34, 0x57, 0xB2), (0x1D, 0x8A, 0x52), (0xC8, 0x41, 0x3B)):
        assert (top == colour).all(axis=1).any()


NAMES = ["Straße/größe.jpg", "a $x^2$ name that is far too long for one line.jpeg", "名前😀.png"]


def drawn(path, names):
    """What texts a picture shows, with an error for a character that is drawn as a box."""
    shown = []
    pictures = np.zeros((1, 3, 4, 4, 3), np.uint8)
    found = neighbors.Neighbors(pictures[0, :1], pictures, np.full((1, 3), 0.5), ["query"], [names])
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        text = Axes.text
        patch.setattr(Axes, "text", lambda *args, **options: shown.append(args[3]) or text(*args, **options))
        found.save_png(path)
    return shown


def test_names_are_drawn_whole_and_without_boxes(tmp_path):
    shown = drawn(tmp_path / "grid.png", NAMES)
    assert [text.replace("\n", "") for text in shown[1:3]] == [f"0.50 {name}" for name in NAMES[:2]]
    assert max(len(line) for text in shown for line in text.split("\n")) <= 21
    short = drawn(tmp_path / "short.png", ["a", "b", "c"])
    assert Image.open(tmp_path / "grid.png").size[1] > Image.open(tmp_path / "short.png").size[1]
    assert short == ["query", "0.50 a", "0.50 b", "0.50 c"]


def test_characters_that_no_font_has_are_escapes(tmp_path, monkeypatch):
    fonts = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    *_, text = drawn(tmp_path / "grid.png", NAMES)
    assert text.replace("\n", "").startswith(r"0.50 \u{540d}\u{524d}")


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="do not fit"):
        neighbors.Neighbors(np.zeros((2, 4, 4, 3)), np.zeros((1, 3, 4, 4, 3)), np.zeros((2, 3)), ["a"] * 2, [[]] * 2)


def test_examples():
    result = doctest.testmod(neighbors)
    assert result.attempted and not result.failed

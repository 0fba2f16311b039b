import doctest
import importlib

import numpy as np
import pytest

from tf_detreg import datasets

module = importlib.import_module("tf_detreg.datasets.letters")


def test_classes_and_images_are_as_many_as_asked_for():
    splits = datasets.letters(image_size=20, images=5, seed=3)
    names = [name for part in splits for name in part.class_names]
    assert len(names) == len(set(names)) == len(module.CHARACTERS) == 78
    for part in splits:
        assert part.images.shape[1:] == (20, 20, 3) and set(np.bincount(part.labels)) == {5}


def test_the_same_pixels_for_the_same_seed():
    first, again, other = (datasets.letters(images=2, seed=seed).train for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    assert first.class_names == again.class_names != other.class_names


def test_each_character_is_drawn_and_unlike_the_others():
    """Centered drawings, not distorted: no two are one, and none is blank or the box of a missing character."""
    from PIL import ImageFont

    from tf_detreg.datasets.drawing import mask

    font = ImageFont.load_default(32)
    drawn = [mask(font, char) for char in (*module.CHARACTERS, chr(0x10FFFF))]
    assert all(ink.any() for ink in drawn)
    assert len({(ink.shape, ink.tobytes()) for ink in drawn}) == len(drawn)


def test_raw_pixels_are_neither_useless_nor_enough():
    test = datasets.letters(images=20).test
    pixels = test.images[..., 0].reshape(len(test), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    scores = pixels @ pixels.T
    np.fill_diagonal(scores, -2)
    assert 0.2 < (test.labels[scores.argmax(1)] == test.labels).mean() < 0.9


@pytest.mark.parametrize("argument", [{"image_size": 8}, {"images": 1}, {"images": 2.0}])
def test_arguments_out_of_range(argument):
    with pytest.raises(ValueError, match=f"`{next(iter(argument))}`"):
        datasets.letters(**argument)


def test_example():
    result = doctest.testmod(module)
    assert result.attempted and not result.failed

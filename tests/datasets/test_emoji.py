"""The emoji set: its file, styles and classes left out, families as groups."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tf_detreg import datasets
from tf_detreg.datasets.emoji import emoji_images

CLASSES = ["apple", "bee", "cat", "dog", "eye"]
STYLES = {"flat": "one", "flat-3d": "one", "plain": "two"}
# (class, style) of each image; dogs and eyes are drawn less often, the eye in one style alone.
DRAWN = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 1)]


def picture(number):
    """Four by four pixels, of which every second row is black."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[::2] = 20 * number
    return pixels


@pytest.fixture
def path(tmp_path):
    contents = []
    for number in range(len(DRAWN)):
        buffer = io.BytesIO()
        Image.fromarray(picture(number)).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    styles = [{"name": name, "family": family} for name, family in STYLES.items()]
    info = {"classes": [{"label": name} for name in CLASSES], "styles": styles}
    label, style = np.transpose(DRAWN)
    file = tmp_path / "emoji.npz"
    np.savez(
        file,
        png=np.frombuffer(b"".join(contents), np.uint8),
        offset=np.cumsum([0, *map(len, contents)]),
        label=label,
        style=style,
        info=np.frombuffer(json.dumps(info).encode(), np.uint8),
    )
    return str(file)


def test_every_image_has_its_class_and_its_family(path):
    found = emoji_images(path)
    assert found.class_names == tuple(CLASSES) and found.name == "emoji"
    assert found.labels.tolist() == [label for label, _ in DRAWN]
    assert found.groups.tolist() == [style == 2 for _, style in DRAWN]
    np.testing.assert_array_equal(found.images, [picture(number) for number in range(len(DRAWN))])


def test_pixels_are_averaged_to_a_smaller_size(path):
    found = emoji_images(path, image_size=2)
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], 10 * np.arange(len(DRAWN)))
    assert found.images.shape[1:] == (2, 2, 3)


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"min_images": 3}, ["apple", "bee", "cat"]),
        ({"min_images": 4}, []),
        ({"without": ("flat-3d",)}, ["apple", "bee", "cat"]),
        ({"without": ("flat-3d",), "min_images": 1}, ["apple", "bee", "cat", "dog"]),
        ({"without": ("flat", "no such style")}, CLASSES),
    ],
)
def test_classes_with_few_images_of_the_styles_that_are_kept_are_left_out(options, classes, path):
    if not classes:
        with pytest.raises(ValueError):
            emoji_images(path, **options)
        return
    found = emoji_images(path, **options)
    kept = [
        (name, style)
        for name, style in ((CLASSES[label], style) for label, style in DRAWN)
        if name in classes and list(STYLES)[style] not in options.get("without", ())
    ]
    assert list(found.class_names) == classes
    assert [found.class_names[label] for label in found.labels] == [name for name, _ in kept]
    assert found.groups.tolist() == [style == 2 for _, style in kept]


def test_classes_are_dealt_into_three_parts(path):
    splits = datasets.emoji(path, image_size=2, validation=0.2, test=0.4, seed=1)
    parts = [splits.train, splits.validation, splits.test]
    assert [part.num_classes for part in parts] == [2, 1, 2]
    assert sorted(name for part in parts for name in part.class_names) == CLASSES
    assert all(part.images.shape[1:] == (2, 2, 3) and part.groups is not None for part in parts)

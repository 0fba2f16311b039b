"""Dozens of classes of images that need nothing but Pillow: the characters of the font inside it, distorted."""

from __future__ import annotations

import unicodedata

import numpy as np

from tf_detreg import checks
from tf_detreg.datasets.drawing import draw
from tf_detreg.datasets.image_set import ImageSet, Splits, split_by_class

# Without those that differ from another in size or position alone, such as o, O and 0, or the hyphen and the dash.
CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrty123456789!"#$%&(*+/<=>?@[\\]^{}~©«±»“™'


def letters(
    image_size: int = 32, images: int = 60, validation: float = 0.2, test: float = 0.3, seed: int = 0
) -> Splits:
    """Load characters as classes, drawings of them as images: 78 classes for a first trial, and for nothing else.

    Every image is its character in the one font that Pillow brings, moved, scaled, turned, slanted and made a little
    noisy at random: a small set that needs no optional package and no download. `glyphs` has 22 faces of over 3,000
    characters. The same version of Pillow draws the same pixels.

    Args:
        image_size: Side in pixels, 16 to 128. Default 32.
        images: Images of each class, at least 2. Default 60.
        validation: Share of the classes for validation. Default 0.2.
        test: Share of the classes for testing. Default 0.3.
        seed: Of the random placement and of the split. Default 0.

    Returns:
        `Splits` by class of gray images (three equal channels, one in memory).

    Raises:
        ValueError: For a size, a number of images or shares out of range.

    Example:
    >>> from tf_detreg import datasets
    >>> train, validation, test = datasets.letters(images=4)
    >>> train.num_classes, validation.num_classes, test.num_classes, train.images.shape
    (39, 16, 23, (156, 32, 32, 3))
    """
    from PIL import ImageFont

    image_size = checks.integer("image_size", image_size, 16, 128)
    images = checks.integer("images", images, 2)
    pixels = draw(ImageFont.load_default(image_size), CHARACTERS * images, image_size, np.random.default_rng(int(seed)))
    labels = np.tile(np.arange(len(CHARACTERS)), images)
    order = np.argsort(labels, kind="stable")
    names = [unicodedata.name(char) for char in CHARACTERS]
    whole = ImageSet(labels=labels[order], class_names=names, images=pixels[order], name="letters")
    return split_by_class(whole, validation, test, seed)

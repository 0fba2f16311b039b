"""Labeled images: loaders that return `Splits(train, validation, test)` of `ImageSet`."""

from tf_detreg.datasets import decode as _moved  # noqa: F401 - so that a later import cannot hide the function
from tf_detreg.datasets.arrays import arrays
from tf_detreg.datasets.cache import find_data
from tf_detreg.datasets.cars import cars
from tf_detreg.datasets.csv_file import csv
from tf_detreg.datasets.cub import cub
from tf_detreg.datasets.digits import digits
from tf_detreg.datasets.emoji import emoji, emoji_images
from tf_detreg.datasets.feature_cache import FeatureSet, cache_features
from tf_detreg.datasets.folder import folder
from tf_detreg.datasets.glyphs import glyphs
from tf_detreg.datasets.image_set import ImageSet, Splits, hold_out, split_by_class
from tf_detreg.datasets.in_shop import GallerySplits, in_shop
from tf_detreg.datasets.letters import letters
from tf_detreg.datasets.sop import sop
from tf_detreg.datasets.tfds import tfds
from tf_detreg.images import RandomCrop, UnreadableImage, decode

LOADERS = ("glyphs", "letters", "digits", "emoji", "cub", "cars", "sop", "in_shop", "folder", "csv", "tfds")
"""What a run's configuration can name as its data."""

__all__ = [
    "LOADERS",
    "FeatureSet",
    "GallerySplits",
    "ImageSet",
    "RandomCrop",
    "Splits",
    "UnreadableImage",
    "arrays",
    "cache_features",
    "cars",
    "csv",
    "cub",
    "decode",
    "digits",
    "emoji",
    "emoji_images",
    "find_data",
    "folder",
    "glyphs",
    "hold_out",
    "in_shop",
    "letters",
    "sop",
    "split_by_class",
    "tfds",
]

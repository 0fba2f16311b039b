"""Labelled images: loaders that return `Splits(train, validation, test)` of `ImageSet`."""

from tf_detreg.datasets.decode import RandomCrop, UnreadableImage
from tf_detreg.datasets.digits import digits
from tf_detreg.datasets.image_set import ImageSet, Splits, split_by_class

__all__ = ["ImageSet", "RandomCrop", "Splits", "UnreadableImage", "digits", "split_by_class"]

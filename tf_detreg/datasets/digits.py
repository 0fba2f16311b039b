"""scikit-learn's 8×8 handwritten digits: 1,797 images of 10 classes, at hand without a network."""

from __future__ import annotations

import numpy as np

from tf_detreg import checks, extras
from tf_detreg.datasets.image_set import ImageSet, Splits


def digits(seed: int = 0) -> Splits:
    """Load the digits, split by *image* (ten classes are too few to hold some out): 60 % / 20 % / 20 %.

    Args:
        seed: Of the split. Default 0.

    Returns:
        `Splits` of 8 × 8 images whose three channels are equal.

    Example:
    >>> from tf_detreg import datasets
    >>> train, validation, test = datasets.digits()
    >>> train.num_classes, len(train) + len(validation) + len(test)
    (10, 1797)
    """
    seed = checks.integer("seed", seed)
    with extras.needed("The digits data set"):
        from sklearn.datasets import load_digits

    source = load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)
    whole = ImageSet(labels=source.target, class_names=[str(d) for d in range(10)], images=images, name="digits")
    order = np.random.default_rng(seed).permutation(len(whole))
    cuts = [round(0.6 * len(whole)), round(0.8 * len(whole))]
    return Splits(*(whole.subset(np.sort(part)) for part in np.split(order, cuts)))

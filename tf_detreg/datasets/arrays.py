"""Arrays that are in memory already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.datasets.image_set import ImageSet, Splits, split_by_class
from tf_detreg.datasets.names import normal_names


def arrays(
    images: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    validation: float = 0.2,
    test: float = 0.3,
    seed: int = 0,
    name: str = "arrays",
) -> Splits:
    """Split arrays by class.

    Args:
        images: uint8 (N, H, W, 3) or (N, H, W).
        labels: N labels of any kind (numbers with gaps, names); equal ones are one class, also where
            names differ in white space or Unicode form only.
        groups: N labels of any kind for cross-group retrieval, or None.
        class_names: Names of the classes in sorted order of their labels; None takes the labels themselves.
        validation: Share of the classes for validation. Default 0.2.
        test: Share of the classes for testing. Default 0.3.
        seed: Of the deal. Default 0.
        name: What reports call the set. Default "arrays".

    Example:
    >>> import numpy as np
    >>> from tf_detreg import datasets
    >>> x = np.zeros((20, 8, 8, 3), "uint8")
    >>> datasets.arrays(x, np.repeat(["ant", "bee", "cat", "dog"], 5), validation=0.25, test=0.25).train
    ImageSet('arrays/train', 10 images of 2 classes, (8, 8) px)
    """
    values, numbers = _numbered("labels", labels)
    if class_names is None:
        class_names = [str(value) for value in values]
    elif len(class_names) != len(values):
        raise checks.invalid("class_names", f"be one a label, {len(values)}", f"{len(class_names)}")
    if groups is not None:
        groups = _numbered("groups", groups)[1]
    whole = ImageSet(labels=numbers, class_names=class_names, images=np.asarray(images), groups=groups, name=name)
    return split_by_class(whole, validation, test, seed)


def _numbered(name: str, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values in order, and the number of each item's."""
    values = np.asarray(values)
    if values.ndim == 1 and values.dtype.kind == "U":
        values = np.asarray(normal_names(values.tolist(), name), str)
    try:
        kinds, numbers = np.unique(values, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"`{name}` holds values that cannot be sorted ({error}). Give integers or strings.") from error
    if values.ndim != 1 or (kinds != kinds).any():
        raise ValueError(f"`{name}` must be a vector without NaN; received {values.dtype} of shape {values.shape}.")
    return kinds, numbers

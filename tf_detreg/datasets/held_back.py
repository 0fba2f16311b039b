"""The images of a data set that a model is measured on."""

from tf_detreg.datasets.image_set import ImageSet, Splits


def held_back(splits: Splits) -> ImageSet:
    """Return the test images of a data set, or where it has none those for validation.

    Raises:
        ValueError: If it has neither.

    Example:
        >>> from tf_detreg import datasets
        >>> len(held_back(datasets.digits()))
        359
    """
    part = splits.test if len(splits.test) else splits.validation
    if not len(part):
        raise ValueError(
            f"{splits.train.name} has neither test nor validation images: there is nothing to measure on. Give the "
            "data set test or validation classes."
        )
    return part


def measured_on(splits: Splits) -> list[ImageSet]:
    """Return the images to measure on, and their gallery where the data set has one."""
    gallery = getattr(splits, "gallery", None)
    return [held_back(splits)] + ([] if gallery is None else [gallery])

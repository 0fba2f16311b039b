"""The one shape that every data set takes: labels, names, and pixels or paths."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.datasets.batches import ordered_batches, training_batches
from tf_detreg.datasets.paths import PathList
from tf_detreg.images.arrays import is_gray_view, three_channels
from tf_detreg.images.geometry import Size as Size  # loaders import it from here

if TYPE_CHECKING:
    import tensorflow as tf

    from tf_detreg.images.geometry import RandomCrop


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images, in memory (`images`) or on disk (`paths`).

    Args:
        labels: int32 (N,), from 0 to C-1.
        class_names: C names; `class_names[labels[i]]` is what image i shows.
        images: uint8 (N, H, W, 3), or None when the images are files. Gray images are given as
            (N, H, W) or (N, H, W, 1) and stay one channel in memory (a broadcast view shows three).
        paths: N file names, or None when the images are in memory.
        groups: int32 (N,) or None: a second label (font family, artist, camera) for cross-group retrieval.
        name: What reports call the set. Default "images".
        image_size: Side, or (height, width), at which files are decoded; taken from `images` when those are given.
        skipped: Files that a loader left out, each with its reason. Default none.

    Raises:
        ValueError: When lengths, types or the range of the labels do not fit together.

    Example:
    >>> import numpy as np
    >>> from tf_detreg.datasets import ImageSet
    >>> s = ImageSet(labels=[0, 0, 1], class_names=["cat", "dog"], images=np.zeros((3, 8, 8), "uint8"))
    >>> len(s), s.num_classes, s.images.shape
    (3, 2, (3, 8, 8, 3))
    """

    labels: np.ndarray
    class_names: Sequence[str]
    images: np.ndarray | None = None
    paths: Sequence[str] | None = None
    groups: np.ndarray | None = None
    name: str = "images"
    image_size: Size | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)  # a frozen dataclass
        put("labels", _integers("labels", self.labels))
        put("class_names", tuple(self.class_names))
        if (self.images is None) == (self.paths is None):
            received = "neither" if self.images is None else "both"
            raise checks.invalid("images", "be given (an array), or `paths` (file names)", received)
        if self.images is not None:
            put("images", three_channels(self.images))
            put("image_size", tuple(self.images.shape[1:3]))
        elif self.image_size is None:
            raise checks.invalid(
                "image_size", "be the size at which the files in `paths` are decoded, e.g. 224", "None"
            )
        if isinstance(self.paths, str | bytes | os.PathLike):
            raise ValueError(f"`paths` must be a list of file names; received the one name {self.paths!r}.")
        count = len(self.files if self.images is None else self.images)
        if count != len(self.labels):
            raise checks.invalid("labels", f"be one an image, {count}", f"{len(self.labels)}")
        if self.groups is not None:
            put("groups", _integers("groups", self.groups))
            if len(self.groups) != len(self.labels):
                raise checks.invalid("groups", f"be one an image, {len(self.labels)}", f"{len(self.groups)}")
        if len(self.labels) and (self.labels.min() < 0 or self.labels.max() >= len(self.class_names)):
            raise checks.invalid(
                "labels",
                f"lie in 0..C-1 for the C={len(self.class_names)} `class_names`",
                f"{self.labels.min()} to {self.labels.max()}",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}, {len(self)} images of {self.num_classes} classes, {self.image_size} px)"

    @property
    def pixels(self) -> np.ndarray:
        """Return `images`, of a set in memory."""
        if self.images is None:
            raise ValueError(f"{self.name} holds files, whose pixels are read in batches: no array of images.")
        return self.images

    @property
    def files(self) -> Sequence[str]:
        """Return `paths`, of a set on disk."""
        if self.paths is None:
            raise ValueError(f"{self.name} holds images in memory: there are no files.")
        return self.paths

    @property
    def size(self) -> Size:
        """Return `image_size`, which every set has once it is made."""
        if self.image_size is None:
            raise ValueError(f"{self.name} has no `image_size`.")
        return self.image_size

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def batches(
        self,
        classes: int = 32,
        images: int = 4,
        seed: int = 0,
        augment: Callable[..., Any] | None = None,
        image_size: Size | None = None,
        *,
        crop: RandomCrop | None = None,
        first_epoch: int = 0,
        max_unreadable: float = 0.05,
    ) -> tf.data.Dataset:
        """Return training batches of `classes` × `images`; an iteration is an epoch. See `batches.training_batches`."""
        return training_batches(
            self,
            classes,
            images,
            seed=seed,
            augment=augment,
            image_size=image_size,
            crop=crop,
            first_epoch=first_epoch,
            max_unreadable=max_unreadable,
        )

    def ordered(self, batch_size: int = 128, image_size: Size | None = None) -> tf.data.Dataset:
        """Return (float32 images in 0..255, int32 labels) in index order, each once; unreadable files are left out."""
        return ordered_batches(self, batch_size, image_size=image_size, what="labels")

    def indexed(self, batch_size: int = 128, image_size: Size | None = None) -> tf.data.Dataset:
        """Return the same as `ordered`, with each image's index in the set in place of its label."""
        return ordered_batches(self, batch_size, image_size=image_size, what="indices")

    def subset(self, indices: ArrayLike) -> ImageSet:
        """Return the images at `indices` (integers or a mask), with the same classes and labels."""
        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        return replace(
            self,
            labels=self.labels[indices],
            images=None if self.images is None else _take(self.images, indices),
            paths=None if self.paths is None else _take_paths(self.paths, indices),
            groups=None if self.groups is None else self.groups[indices],
        )

    def select_classes(self, ids: Sequence[int] | np.ndarray, name: str | None = None) -> ImageSet:
        """Return the images of the classes `ids`, relabeled 0..len(ids)-1 in the order of `ids`."""
        ids = np.asarray(ids, np.int64)
        if len(np.unique(ids)) != len(ids) or (len(ids) and (ids.min() < 0 or ids.max() >= self.num_classes)):
            raise ValueError(f"`ids` must be different numbers in 0..{self.num_classes - 1}; received {ids!r}.")
        new_label = np.full(self.num_classes, -1, np.int32)
        new_label[ids] = np.arange(len(ids), dtype=np.int32)
        kept = self.subset(new_label[self.labels] >= 0)
        names = tuple(self.class_names[i] for i in ids)
        return replace(kept, labels=new_label[kept.labels], class_names=names, name=name or self.name)


class Splits(NamedTuple):
    """What every loader returns: three sets, usually with no class in common."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def split_by_class(image_set: ImageSet, validation: float = 0.2, test: float = 0.3, seed: int = 0) -> Splits:
    """Deal the classes (not the images) into train, validation and test at random.

    Args:
        image_set: The whole set.
        validation: Share of the classes for validation. Default 0.2.
        test: Share of the classes for testing. Default 0.3.
        seed: Of the deal. Default 0.

    Raises:
        ValueError: When a share is impossible or leaves no class for training.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(
            f"`validation` and `test` must be shares that leave classes for training; received {validation} and {test}."
        )
    total = image_set.num_classes
    n_validation, n_test = (max(1, round(share * total)) if share else 0 for share in (validation, test))
    if total - n_validation - n_test < 1:
        raise ValueError(
            f"{image_set.name} has {total} classes, too few to split by class: {n_validation} for validation and "
            f"{n_test} for testing leave none to train on. Add classes (four or more), lower `validation` and `test`, "
            "or sort the images into the folders train/ and test/ yourself."
        )
    order = np.random.default_rng(checks.integer("seed", seed)).permutation(total)
    parts = np.split(order, [total - n_validation - n_test, total - n_test])
    names = ("train", "validation", "test")
    return Splits(
        *(
            image_set.select_classes(np.sort(part), f"{image_set.name}/{n}")
            for part, n in zip(parts, names, strict=True)
        )
    )


def hold_out(train: ImageSet, share: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Take a share of the classes of a train set for validation; with a share of 0 the second set is empty."""
    kept, held, _ = split_by_class(train, share, 0.0, seed)
    name = train.name.removesuffix("/train")
    return replace(kept, name=f"{name}/train"), replace(held, name=f"{name}/validation")


def _integers(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"`{name}` must be a vector of integers; received {array.dtype} of shape {array.shape}.")
    if array.size and (array.min() < np.iinfo(np.int32).min or array.max() > np.iinfo(np.int32).max):
        raise checks.invalid(name, "fit into int32", f"{array.min()} to {array.max()}", "Number them anew.")
    return array.astype(np.int32, copy=False)


def _take(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    if is_gray_view(images):
        return np.broadcast_to(images[..., :1][indices], (len(indices), *images.shape[1:]))
    result: np.ndarray = images[indices]
    return result


def _take_paths(paths: Sequence[str], indices: np.ndarray) -> Sequence[str]:
    return paths.take(indices) if isinstance(paths, PathList) else tuple(paths[i] for i in indices)

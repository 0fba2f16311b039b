"""The data of a study: images or cached features of every class, dealt into train, validation and test by class."""

import dataclasses
import inspect
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from tf_detreg import files
from tf_detreg.experiments import emoji_set
from tf_detreg.experiments.study import recipe_hash

CACHE_VARIABLE = "TF_DETREG_CACHE"


@dataclasses.dataclass(frozen=True)
class Arrays:
    """What a trial reads: inputs (features `(N, F)` or images `(N, H, W, 3)`), labels from 0, groups or None."""

    inputs: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def select(self, classes: np.ndarray) -> "Arrays":
        """The rows of these classes, relabelled from 0."""
        new = np.full(self.num_classes, -1, np.int32)
        new[classes] = np.arange(len(classes), dtype=np.int32)
        rows = np.flatnonzero(new[self.labels] >= 0)
        groups = None if self.groups is None else self.groups[rows]
        return Arrays(self.inputs[rows], new[self.labels[rows]], groups, tuple(self.names[c] for c in classes))


def load(table: Mapping) -> Arrays:
    """The data of a study's `[data]` table.

    Keys: `source` ("glyphs", "digits", "emoji", "folder"), `features` (a backbone's name, or "pixels"; they are
    computed once and cached; without it trials get images), `weights` (of that backbone), `image_size`, and for the
    sources: `path`, `without`, `max_classes`.

    Raises:
        ValueError: for an unknown source, or files that are not there.
    """
    if "features" not in table:
        images = _images(table, table.get("image_size"))
        return Arrays(images.images, images.labels, images.groups, tuple(images.class_names))
    folder = cache_folder() / f"features-{fingerprint(table)}"
    if not folder.is_dir():
        _extract(table, folder)
    with np.load(folder / "labels.npz", allow_pickle=False) as file:
        groups = file["groups"] if "groups" in file.files else None
        return Arrays(np.load(folder / "features.npy", mmap_mode="r"), file["labels"], groups, tuple(file["names"]))


def fingerprint(table: Mapping) -> str:
    """A short name of the data's table. Files count by name and size, not by where they lie."""
    content = dict(table)
    for key in ("path", "weights"):
        if isinstance(content.get(key), str) and key in content:
            place = _place(content[key])
            content[key] = (
                [place.name, place.stat().st_size] if place and place.is_file() else pathlib.Path(content[key]).name
            )
    return recipe_hash(content)


def cache_folder() -> pathlib.Path:
    """Where features are kept: `TF_DETREG_CACHE`, else the user's cache folder."""
    fallback = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "tf_detreg"
    return pathlib.Path(os.environ.get(CACHE_VARIABLE, fallback))


def deal(num_classes: int, validation: float, test: float, seed: int, share: float = 1.0) -> tuple[np.ndarray, ...]:
    """Class numbers of train, validation and test.

    Args:
        num_classes: how many there are.
        validation: share of the non-test classes.
        test: share of all classes.
        seed: of the deal: the split.
        share: of the train classes that are kept, for small-data studies.
    """
    order = np.random.default_rng(seed).permutation(num_classes)
    n_test = round(test * num_classes)
    rest = order[n_test:]
    n_validation = round(validation * len(rest))
    train = rest[n_validation:]
    train = train[: max(2, round(share * len(train)))]
    if n_validation < 2 or n_test < 2 or len(train) < 2:
        raise ValueError(
            f"{num_classes} classes with validation={validation} and test={test} leave fewer than 2 classes in a part."
        )
    return train, rest[:n_validation], order[:n_test]


def _images(table: Mapping, emoji_size: int | None = None):
    """The source's images; those of the emoji set at `emoji_size`, or as stored for a backbone that resizes them."""
    from tf_detreg import datasets

    source = table.get("source")
    if source == "emoji":
        return emoji_set.emoji(
            table.get("path", "emoji_styles_96.npz"), tuple(table.get("without", ())), image_size=emoji_size
        )
    if source == "folder":
        image_set = _whole(datasets.folder(emoji_set.find(table["path"]), image_size=table["image_size"]))
        pixels = np.concatenate([x.numpy() for x, _ in image_set.ordered()])
        return dataclasses.replace(image_set, images=pixels.astype("uint8"), paths=None)
    if source not in ("glyphs", "digits"):
        raise ValueError(f"data.source must be glyphs, digits, emoji or folder, received {source!r}.")
    loader = getattr(datasets, source)
    known = inspect.signature(loader).parameters
    image_set = _whole(loader(**{k: v for k, v in table.items() if k in known and k not in ("source", "features")}))
    limit = table.get("max_classes")
    return image_set.select_classes(np.arange(min(limit, image_set.num_classes))) if limit else image_set


def _whole(splits):
    """The three sets of a loader as one, classes numbered on from part to part."""
    labels, offset = [], 0
    for part in splits:
        labels.append(part.labels + offset)
        offset += part.num_classes
    first = splits[0]
    join = lambda field: (  # noqa: E731
        None if getattr(first, field) is None else np.concatenate([np.asarray(getattr(p, field)) for p in splits])
    )
    paths = join("paths")
    return dataclasses.replace(
        first,
        labels=np.concatenate(labels),
        class_names=[name for part in splits for name in part.class_names],
        images=join("images"),
        paths=None if paths is None else list(paths),
        groups=join("groups"),
        name=first.name.split("/")[0],
    )


def _extract(table: Mapping, folder: pathlib.Path) -> None:
    """Compute the features of all images once and put them beside their labels."""
    image_set = _images(table)
    if table["features"] == "pixels":
        features = image_set.images.reshape(len(image_set), -1).astype("float32") / 255.0
    else:
        from tf_detreg import backbones

        size = table.get("image_size", image_set.image_size)
        backbone = backbones.build(table["features"], size, weights=weights(table.get("weights")), trainable=False)
        batches = image_set.ordered(batch_size=64, image_size=size).map(lambda x, _: x)
        features = backbone.predict(batches, verbose=0).astype("float32")
    with files.replacing(folder) as room:
        room.mkdir()
        np.save(room / "features.npy", features)
        more = {} if image_set.groups is None else {"groups": image_set.groups}
        np.savez(room / "labels.npz", labels=image_set.labels, names=np.array(image_set.class_names), **more)


def weights(name: str | None) -> str | None:
    """What `backbones.build` takes: a weights file is looked for as data are, another name stays as it is."""
    return str(emoji_set.find(name)) if name and name.endswith(".npz") else name


def _place(name: str) -> pathlib.Path | None:
    try:
        return emoji_set.find(name)
    except ValueError:
        return None

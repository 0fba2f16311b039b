"""The emoji cross-style set: one class is an emoji, one image is that emoji as one design draws it."""

import io
import json

import numpy as np

from tf_detreg.datasets.cache import find_data
from tf_detreg.datasets.image_set import ImageSet, Splits, split_by_class


def emoji(
    path: str = "emoji_styles_96.npz",
    without: tuple[str, ...] = (),
    min_images: int = 2,
    image_size: int | None = None,
    validation: float = 0.2,
    test: float = 0.3,
    seed: int = 0,
) -> Splits:
    """Load an emoji set, its classes dealt into train, validation and test.

    Args:
        path: As for `emoji_images`.
        without: As for `emoji_images`.
        min_images: As for `emoji_images`. Default 2.
        image_size: As for `emoji_images`. Default: as they are in the file.
        validation: Share of the classes for validation. Default 0.2.
        test: Share of the classes for testing. Default 0.3.
        seed: Of the deal. Default 0.

    Returns:
        Three sets whose `groups` are the design families.

    Raises:
        FileNotFoundError: If the file is not there.
    """
    return split_by_class(emoji_images(path, without, min_images, image_size), validation, test, seed)


def emoji_images(
    path: str = "emoji_styles_96.npz",
    without: tuple[str, ...] = (),
    min_images: int = 2,
    image_size: int | None = None,
) -> ImageSet:
    """Load an emoji set as written by `examples/rebuild_emoji_set.py`.

    Args:
        path: The `.npz` file, looked for with `datasets.find_data`.
        without: Styles to leave out, by name. `("fluent-emoji-flat", "fluent-3d")` removes near copies. Styles that
            the set does not hold are no error: sets can be rebuilt with fewer.
        min_images: Classes with fewer images are dropped. Default 2.
        image_size: Side in pixels, resized by averaging (box filter). Default: as they are in the file.

    Returns:
        An `ImageSet` whose `groups` are the design families, for cross-family retrieval.

    Raises:
        FileNotFoundError: If the file is not there.
    """
    with np.load(find_data(path), allow_pickle=False) as file:
        png, offset = file["png"], file["offset"]
        label, style = file["label"].astype(np.int32), file["style"].astype(np.int32)
        info = json.loads(file["info"].tobytes())
    names = [entry["name"] for entry in info["styles"]]
    kept = np.isin(style, [i for i, name in enumerate(names) if name not in without])
    count = np.bincount(label[kept], minlength=len(info["classes"]))
    kept &= count[label] >= min_images
    rows = np.flatnonzero(kept)
    images = np.stack([_pixels(png[offset[i] : offset[i + 1]].tobytes(), image_size) for i in rows])
    classes, labels = np.unique(label[rows], return_inverse=True)
    family = np.unique([entry["family"] for entry in info["styles"]], return_inverse=True)[1]
    return ImageSet(
        labels=labels,
        class_names=[info["classes"][c]["label"] for c in classes],
        images=images,
        groups=family[style[rows]],
        name="emoji",
    )


def _pixels(content: bytes, image_size: int | None) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=("PNG",)).convert("RGB")
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BOX) if image_size else image)

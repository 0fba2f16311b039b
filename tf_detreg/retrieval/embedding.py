"""All embeddings of a set of images."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from tf_detreg import checks
from tf_detreg.backbones.pixel_range import PixelRange
from tf_detreg.inference import traced
from tf_detreg.progress import ticker

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


class Embedded(NamedTuple):
    """Embeddings `(N, dim)` float32 and, for each row, the index of its image in the set, its label and its group."""

    embeddings: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None


def embed(
    embedder: keras.Model,
    image_set: "ImageSet",
    batch_size: int = 128,
    progress: bool | None = None,
    title: str = "Embedding",
) -> Embedded:
    """Embed every image of a set once, in index order; images that cannot be read are left out.

    Args:
        embedder: Images → embeddings.
        image_set: `datasets.ImageSet`.
        batch_size: Default 128.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.
        title: What the progress is named. Default `"Embedding"`.

    Returns:
        Embeddings, indices, labels and groups.

    Raises:
        ValueError: If the set is empty, or none of its images can be read.

    Example:
        >>> from tf_detreg import datasets
        >>> images = datasets.digits().validation
        >>> pixels = keras.Sequential([keras.Input((*images.image_size, 3)), keras.layers.Flatten()])
        >>> embed(pixels, images).embeddings.shape == (len(images), 3 * images.image_size[0] ** 2)
        True
    """
    if not len(image_set):
        raise checks.invalid("image_set", "hold an image", "none")
    parts, indices = [], []
    for vectors, rows in embed_parts(embedder, image_set, batch_size, progress, title):
        parts.append(vectors)
        indices.append(rows)
    if not parts:
        raise ValueError(f"Not one of the {len(image_set)} images of {image_set.name} can be read; the log names them.")
    rows = np.concatenate(indices)
    groups = None if image_set.groups is None else image_set.groups[rows]
    return Embedded(np.concatenate(parts).astype(np.float32, copy=False), rows, image_set.labels[rows], groups)


def embed_parts(
    embedder: keras.Model,
    image_set: "ImageSet",
    batch_size: int = 128,
    progress: bool | None = None,
    title: str = "Embedding",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embed the images of a set once, in index order, a batch at a time: no more than that is in memory.

    Args:
        embedder: Images → embeddings.
        image_set: `datasets.ImageSet`.
        batch_size: Default 128.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.
        title: What the progress is named. Default `"Embedding"`.

    Yields:
        Embeddings `(n, dim)` float32, and the index of the image of each; those that cannot be read are left out.
    """
    run, pixel_range = traced(embedder), PixelRange()
    with ticker(title, len(image_set), progress) as tick:
        for images, rows in image_set.indexed(batch_size):
            if len(rows):
                pixel_range(images)
                yield run(images).numpy(), rows.numpy()
            tick(batch_size)

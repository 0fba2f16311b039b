"""Embeddings for TensorBoard's projector."""

import os
import pathlib
from typing import TYPE_CHECKING

import keras
import numpy as np

from tf_detreg.files import replacing, write_text
from tf_detreg.retrieval.embedding import embed
from tf_detreg.training.optimizers import averaged

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


_SPRITE = 8192  # TensorBoard's limit for a side, in pixels


class EmbeddingProjector(keras.callbacks.Callback):
    """At the end of training, writes a folder that `tensorboard --logdir` shows as a cloud of pictures.

    Args:
        image_set: `datasets.ImageSet`; its first `limit` images are shown.
        directory: The log folder.
        limit: Default 2000.
        thumbnail: Side of a picture in pixels. Default 48.
    """

    def __init__(
        self, image_set: "ImageSet", directory: str | os.PathLike[str], limit: int = 2000, thumbnail: int = 48
    ) -> None:
        super().__init__()
        self.image_set, self.directory, self.thumbnail = image_set, pathlib.Path(directory), thumbnail
        self.limit = min(limit, (_SPRITE // thumbnail) ** 2)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        with averaged(self.model):
            self.write(getattr(self.model, "embedder", self.model))

    def write(self, embedder: keras.Model) -> pathlib.Path:
        """Write vectors, labels, pictures and the projector's configuration; return the folder."""
        some = self.image_set.subset(np.arange(min(self.limit, len(self.image_set))))
        found = embed(embedder, some)
        names = [some.class_names[label].replace("\t", " ").replace("\n", " ") for label in found.labels]
        rows = ["\t".join(f"{value:.6g}" for value in row) for row in found.embeddings]
        write_text(self.directory / "embeddings.tsv", "\n".join(rows) + "\n")
        write_text(self.directory / "labels.tsv", "\n".join(names) + "\n")
        self._write_sprite(some.subset(found.indices))
        side = self.thumbnail
        write_text(
            self.directory / "projector_config.pbtxt",
            'embeddings {\n  tensor_path: "embeddings.tsv"\n  metadata_path: "labels.tsv"\n'
            f'  sprite {{ image_path: "images.png" single_image_dim: {side} single_image_dim: {side} }}\n}}\n',
        )
        return self.directory

    def _write_sprite(self, image_set: "ImageSet") -> None:
        from PIL import Image

        columns = int(np.ceil(np.sqrt(len(image_set))))
        sheet = Image.new("RGB", (columns * self.thumbnail,) * 2, "white")
        size = (self.thumbnail, self.thumbnail)
        for images, rows in image_set.indexed():
            for pixels, row in zip(images.numpy(), rows.numpy(), strict=True):
                picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize(size)
                sheet.paste(picture, (int(row) % columns * size[0], int(row) // columns * size[1]))
        with replacing(self.directory / "images.png") as temporary:
            sheet.save(temporary)

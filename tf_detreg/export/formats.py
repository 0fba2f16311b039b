"""The files that a release holds beside its SavedModel: who writes each of them."""

import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np

from tf_detreg.export.lite import litert

Writer = Callable[[keras.Model, pathlib.Path, np.ndarray | None, Sequence[str] | None], pathlib.Path]
"""Takes the embedder, where the file goes but for its ending, calibration images and class names; returns the path."""


def _lite(quantize: str | None) -> Writer:
    def write(
        embedder: keras.Model, stem: pathlib.Path, calibration: np.ndarray | None, class_names: Sequence[str] | None
    ) -> pathlib.Path:
        path = stem.with_name(f"{stem.name}.tflite")
        return litert(embedder, path, quantize, calibration, class_names=class_names)

    return write


WRITERS: dict[str, Writer] = {
    "float32": _lite(None),
    "float16": _lite("float16"),
    "dynamic": _lite("dynamic"),
    "int8": _lite("int8"),
}
"""By the name of the format, which ends the stem. `export.verify` finds the runtime by the file's ending."""

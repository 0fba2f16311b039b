"""Loading a saved embedder."""

import os
import pathlib

import keras

from tf_detreg import archives
from tf_detreg.files import existing

_ENTRIES = ("config.json", "metadata.json", "model.weights.h5")


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Load an embedder that was written with ``embedder.save("x.keras")``.

    The same as ``keras.models.load_model`` with ``safe_mode`` on, in a process where our layers are registered: no code
    from the file is run.

    Args:
        path: A `.keras` file, or a run directory (then its `embedder.keras` is taken).

    Returns:
        The inference model: images `(B, H, W, 3)` with pixel values 0..255 to unit vectors `(B, dim)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged: all of it is read and compared with its checksums first.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / "embedder.keras"
    existing(path, "path", "Give a .keras file, or the directory of a finished run.")
    if path.suffix == ".keras":
        fault = archives.fault(path, _ENTRIES)
        if fault is not None:
            raise ValueError(
                f"{str(path)!r} is damaged ({fault}). Copy it again, or remove it and train on "
                "(`tf-detreg train --run … --resume`)."
            )
    return keras.models.load_model(path, compile=False, safe_mode=True)

"""The model that the server runs: the newest version of a SavedModel folder, taken over when a newer one appears."""

import logging
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tf_detreg.export.publishing import check_version, versions
from tf_detreg.export.verification import facts_of
from tf_detreg.files import existing
from tf_detreg.serving.batching import SIZES

logger = logging.getLogger(__name__)

WARM_UP_ROWS = 32


class Version:
    """One loaded version: its signatures as NumPy functions.

    Args:
        path: The numbered folder.
    """

    def __init__(self, path: pathlib.Path) -> None:
        import tensorflow as tf

        self.number = int(path.name)
        self.facts = facts_of(path)
        check_version(path)
        try:
            self._loaded = tf.saved_model.load(str(path))
        except Exception as error:  # TensorFlow raises many kinds on a damaged folder
            raise ValueError(
                f"The exported version {str(path)!r} cannot be loaded ({error}). Copy it again, or export it again."
            ) from error
        self.signatures = dict(self._loaded.signatures)
        self.definitions = self._read_definitions(path / "saved_model.pb")
        self._constant = tf.constant
        self._warm_up(tf.io.encode_png(tf.zeros((8, 8, 3), tf.uint8)).numpy())

    def _read_definitions(self, file: pathlib.Path) -> dict[str, Any]:
        """Return TensorFlow's descriptions of the signatures (`SignatureDef`), by name."""
        from tensorflow.core.protobuf import saved_model_pb2

        content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        known = content.meta_graphs[0].signature_def
        return {name: known[name] for name in self.signatures}

    def inputs(self, signature: str) -> dict[str, Any]:
        """Return tensor specs of a signature's inputs, by name."""
        result: dict[str, Any] = self.signatures[signature].structured_input_signature[1]
        return result

    def outputs(self, signature: str) -> dict[str, Any]:
        """Return tensor specs of a signature's outputs, by name."""
        result: dict[str, Any] = self.signatures[signature].structured_outputs
        return result

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the signature's outputs for a batch."""
        specs = self.inputs(signature)
        tensors = {name: self._constant(value, specs[name].dtype) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in self.signatures[signature](**tensors).items()}

    def _warm_up(self, picture: bytes) -> None:
        """Run each signature once, and then at the sizes of batches, two at a time as the server does.

        The first call optimizes a graph, for a second or more: no request waits for it, and memory grows now rather
        than later.
        """
        for signature in self.signatures:
            self.run(signature, self._blank(signature, 1, picture))
            sizes = [rows for rows in reversed(SIZES) if rows <= WARM_UP_ROWS]
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda rows, name=signature: self.run(name, self._blank(name, rows, picture)), sizes))

    def _blank(self, signature: str, rows: int, picture: bytes) -> dict[str, np.ndarray]:
        made = {}
        for name, spec in self.inputs(signature).items():
            shape = [size or rows for size in spec.shape.as_list()]
            text = spec.dtype.name == "string"
            made[name] = np.full(shape, picture, object) if text else np.zeros(shape, spec.dtype.as_numpy_dtype)
        return made


class ModelDirectory:
    """A model's folder of numbered versions, as `export.saved_model` writes it.

    Args:
        directory: The folder.
        name: The model's name in the API. Default: the folder's.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no version.
    """

    _away = False  # whether the folder could not be listed at the last look

    def __init__(self, directory: str | os.PathLike[str], name: str | None = None) -> None:
        self.directory = existing(directory, "directory", "Give the folder that export.saved_model wrote to.")
        self.name = name or self.directory.resolve().name
        found = versions(self.directory)
        if not found:
            is_run = (self.directory / "config.json").is_file()
            made = (
                f" It is a run: `tf-detreg export {directory} --format saved_model` writes its model." if is_run else ""
            )
            raise ValueError(
                f"`directory` must hold numbered versions; received {str(directory)!r}, which holds no numbered "
                "model version. Give the folder that "
                f"export.saved_model wrote to, which has folders such as 1/ with saved_model.pb in them.{made}"
            )
        self.current = Version(self.directory / str(found[-1]))
        self._failed: int | None = None  # the last version that could not be loaded

    def refresh(self) -> bool:
        """Load the newest version in the folder where another one serves, which goes on serving until then.

        A newer version is taken over. Where the one that serves was removed, the newest that is left takes its place,
        also an older one; where none is left, it serves on. A version that cannot be loaded is reported, once, and
        tried again at the next look: it may be half copied.

        Returns:
            Whether another version serves now.
        """
        try:
            newest = max(versions(self.directory), default=self.current.number)
        except OSError as error:  # a network disk that is away for a while must not end the watch
            if not self._away:
                number = self.current.number
                logger.warning("%s cannot be read (%s); version %d keeps serving.", self.directory, error, number)
            self._away = True
            return False
        self._away = False
        if newest == self.current.number:
            return False
        try:
            self.current = Version(self.directory / str(newest))
        except Exception:  # TensorFlow raises many kinds on a damaged folder, and what serves must go on
            if newest != self._failed:
                logger.exception("Version %d cannot be loaded; version %d keeps serving.", newest, self.current.number)
            self._failed = newest
            return False
        logger.info("Version %d serves now.", newest)
        return True

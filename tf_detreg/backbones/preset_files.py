"""The files of a preset: in a folder, or downloaded from Kaggle or Hugging Face one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import tensorflow as tf

from tf_detreg import checks
from tf_detreg.datasets import find_data

_KAGGLE, _HUGGING_FACE = "kaggle://", "hf://"
_WEIGHTS = ("model.weights.h5", "model.weights.json")
# The packages whose errors are about the network or the other side.
_NETWORK = ("requests", "urllib3", "httpx", "httpcore", "http", "socket", "ssl", "kagglehub", "huggingface_hub")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a preset is.

    Attributes:
        name: As the user wrote it.
        handle: As keras-hub takes it: a preset's name, a folder, "kaggle://…" or "hf://…".
        location: The folder, "kaggle://…" or "hf://…".
    """

    name: str
    handle: str
    location: str

    @property
    def remote(self) -> bool:
        """Return whether its files are downloaded, unless they are in the cache."""
        return self.location.startswith((_KAGGLE, _HUGGING_FACE))

    @property
    def site(self) -> str:
        """Return the name of the site that it comes from."""
        return "Hugging Face" if self.location.startswith(_HUGGING_FACE) else "Kaggle"

    def file(self, name: str) -> pathlib.Path | None:
        """Return one of its files, or None if there is no such file.

        Raises:
            ConnectionError: If it must be downloaded and the site does not answer, or refuses.
        """
        if not self.remote:
            path = pathlib.Path(self.location) / name
            return path if path.is_file() else None
        with one_sentence(self):
            return _hugging_face(self, name) if self.location.startswith(_HUGGING_FACE) else _kaggle(self, name)

    def json(self, name: str) -> dict[str, Any] | None:
        """Return what a JSON file of it holds, or None if there is no such file."""
        path = self.file(name)
        if path is None:
            return None
        try:
            values = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{name} of {self.name} cannot be read ({error}): copy or download it again.") from error
        if not isinstance(values, dict):
            raise ValueError(f"{name} of {self.name} holds no table: copy or download it again.")
        return values

    def require_weights(self, config: Mapping[str, Any]) -> None:
        """Refuse a folder of keras-hub without weights."""
        if not self.remote and "registered_name" in config and not any(self.file(name) for name in _WEIGHTS):
            raise ValueError(
                f"{self.name} is incomplete: it has no {_WEIGHTS[0]}. Copy it again, or take weights='random'."
            )

    def saved_by(self) -> str:
        """Return which versions wrote it, for a message; "" if that is not known."""
        about = (self.json("metadata.json") if self.file("metadata.json") else None) or {}
        names = {"keras_hub_version": "keras-hub", "keras_version": "Keras"}
        versions = [f"{label} {about[key]}" for key, label in names.items() if key in about]
        return f" (saved by {' and '.join(versions)})" if versions else ""


def is_preset(name: str) -> bool:
    """Return whether a backbone's name is that of a preset of keras-hub, or of a folder with one."""
    folder = _folder(name)
    return name.startswith(("hub:", _KAGGLE, _HUGGING_FACE)) or (
        folder is not None and (folder / "config.json").is_file()
    )


def source(name: str, builtin: Mapping[str, str]) -> Source | None:
    """Return where a preset is, or None if nothing has that name.

    Args:
        name: "hub:NAME", "hub:FOLDER", a folder, "hf://…" or "kaggle://…".
        builtin: Name → location of the presets that keras-hub knows by name.

    Raises:
        ValueError: For a handle of the wrong form.
    """
    asked = name.removeprefix("hub:")
    if asked in builtin:
        return Source(name, asked, builtin[asked])
    forms = {_KAGGLE: "kaggle://USER/MODEL/keras/VARIANT", _HUGGING_FACE: "hf://USER/MODEL"}
    for scheme, form in forms.items():
        if asked.startswith(scheme):
            parts = asked.removeprefix(scheme).split("/")
            if not all(parts) or len(parts) not in ((4, 5) if scheme == _KAGGLE else (2,)):
                raise checks.invalid("backbone", f"have the form {form}", checks.shown(name))
            return Source(name, asked, asked)
    folder = _folder(asked)
    if folder is not None:
        return Source(name, str(folder), str(folder))
    if "://" in asked or asked.startswith((".", "/", "~")) or "\\" in asked:
        raise FileNotFoundError(
            f"`backbone`: there is no preset folder {asked!r}. A backbone of keras-hub is hub:NAME, hub:FOLDER (as "
            f"`save_to_preset` writes one), {forms[_HUGGING_FACE]} or {forms[_KAGGLE]}."
        )
    return None


@contextlib.contextmanager
def one_sentence(preset: Source) -> Iterator[None]:
    """Say in one sentence what fails while a preset is read, and what to do."""
    try:
        yield
    except (ImportError, MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        if preset.remote and _is_network(error):
            host = re.search(r"host='([^']+)'", str(error))
            reason = f"no connection to {host[1]}" if host else reason
            raise ConnectionError(
                f"{preset.name} must be downloaded from {preset.site}, which failed ({reason}). Without a network take "
                "a folder that `save_to_preset` wrote: hub:FOLDER."
            ) from error
        installed = " and ".join(f"{label} {metadata.version(label)}" for label in ("keras-hub", "keras"))
        raise ValueError(
            f"{preset.name} cannot be loaded ({reason}). It is damaged or of other versions{preset.saved_by()} than "
            f"{installed}, which are installed: copy it again, or save it again with these."
        ) from error


def _is_network(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or any(
        kind.__module__.partition(".")[0] in _NETWORK for kind in type(error).__mro__
    )


def _folder(name: str) -> pathlib.Path | None:
    try:
        path = find_data(str(pathlib.Path(name).expanduser()))
    except (ValueError, OSError, RuntimeError):
        return None
    return path if name and path.is_dir() else None


def _kaggle(preset: Source, name: str) -> pathlib.Path | None:
    import kagglehub
    from kagglehub.exceptions import KaggleApiHTTPError

    try:
        return pathlib.Path(kagglehub.model_download(preset.location.removeprefix(_KAGGLE), name))
    except KaggleApiHTTPError as error:
        if getattr(error.response, "status_code", None) == 404:
            return None
        raise


def _hugging_face(preset: Source, name: str) -> pathlib.Path | None:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise ImportError("A preset hf://… needs huggingface_hub (pip install huggingface_hub).") from error
    try:
        return pathlib.Path(hf_hub_download(preset.location.removeprefix(_HUGGING_FACE), name))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None

"""What a bug report should contain: `tf-detreg doctor`, with or without the packages of the command line."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Iterator

from tf_detreg import __version__, extras
from tf_detreg.loading import load_tensorflow

CORE = ("tensorflow", "keras", "numpy", "pillow")
# Optional distributions that a bug report may turn on, and what they are for.
OPTIONAL = {
    "typer": "the command line",
    "tensorflow-probability": "flow heads",
    "tf-keras": "flow heads",
    "scann": "approximate search",
    "usearch": "approximate search",
    "ai-edge-litert": "running .tflite files",
    "tensorflow-serving-api": "warm-up requests in a SavedModel, gRPC",
    "matplotlib": "pictures and reports",
    "scikit-learn": "clustering, calibration",
    "keras-cv": "its backbones",
    "keras-hub": "its backbones",
    "tensorflow-datasets": "`tfds:` data",
    "optuna": "`tf-detreg tune`",
    "pyarrow": "Parquet",
    "apache-beam": "bulk embedding",
    "starlette": "`tf-detreg serve`",
}


def lines() -> Iterator[str]:
    """Yield what a bug report should contain, line by line: TensorFlow, which takes seconds, is loaded at its line."""
    yield f"tf_detreg {__version__}, Python {platform.python_version()}, {platform.platform()}"
    versions = {name: _version(name) for name in (*CORE, *OPTIONAL, *_NEVER)}
    for name in CORE:
        yield f"  {name:26} {versions[name] or 'missing'}"
    brought = {package.distribution: package.extra for package in extras.PACKAGES.values()}
    for name, use in OPTIONAL.items():
        yield f"  {name:26} {versions[name] or 'not installed'}    ({use}: `tf-detreg[{brought[name]}]`)"
    yield f"Caches      {_or_why(_cache)}"
    yield f"GPUs        {_or_why(_gpus)}"
    found = problems(versions)
    for problem in found:
        yield f"Problem     {problem.what}\n            {problem.remedy}"
    if not found:
        yield "No problem is known with this installation."


def main() -> None:
    """Print the lines."""
    for line in lines():
        print(line, flush=True)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that does not work, and what to install."""

    what: str
    remedy: str


_NEVER = ("tensorflow-cpu", "tensorflow-addons")


def problems(versions: dict[str, str | None]) -> list[Problem]:
    """Return what is known not to work among installed versions.

    Args:
        versions: Name of a distribution to its version, or None where it is not installed.

    Example:
        >>> [problem.what for problem in problems({"tensorflow": "2.20.0", "tensorflow-addons": "0.23.0"})]
        ['tensorflow-addons is retired and cannot be imported beside Keras 3.']
    """
    found = []
    minor = _minor(versions.get("tensorflow"))
    for name in CORE:
        if name in versions and versions[name] is None:
            found.append(Problem(f"{name} is missing.", "pip install --upgrade tf-detreg"))
    if versions.get("tensorflow") and versions.get("tensorflow-cpu"):
        found.append(
            Problem(
                "tensorflow and tensorflow-cpu share their files: one of them is broken.",
                "pip uninstall tensorflow-cpu tensorflow && pip install tf-detreg",
            )
        )
    if versions.get("tensorflow-addons"):
        found.append(
            Problem(
                "tensorflow-addons is retired and cannot be imported beside Keras 3.",
                "pip uninstall tensorflow-addons (its losses are in tf_detreg.losses, its optimizers in Keras)",
            )
        )
    if minor and versions.get("scann") and minor != (2, 20):
        found.append(
            Problem(
                f"scann's TensorFlow operations need TensorFlow 2.20, not {versions['tensorflow']}: search works, a "
                "ScaNN SavedModel cannot be exported.",
                "pip install 'tensorflow~=2.20.0' 'tf-keras~=2.20.0'",
            )
        )
    if minor and _minor(versions.get("tf-keras")) not in (None, minor):
        found.append(
            Problem(
                f"tf-keras {versions['tf-keras']} belongs to another TensorFlow than {versions['tensorflow']}.",
                f"pip install 'tf-keras~={minor[0]}.{minor[1]}.0'",
            )
        )
    return found


def _minor(version: str | None) -> tuple[int, int] | None:
    if version is None:
        return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache() -> str:
    from tf_detreg.datasets.cache import cache_folder

    return str(cache_folder())


def _gpus() -> str:
    load_tensorflow()
    import tensorflow as tf

    return ", ".join(gpu.name for gpu in tf.config.list_physical_devices("GPU")) or "none"


def _or_why(ask: Callable[[], str]) -> str:
    """Return the answer, or why TensorFlow or Keras, which it needs, does not start."""
    try:
        return ask()
    except Exception as error:  # whatever is wrong with an installation, the report is printed
        return f"unknown: {error}"

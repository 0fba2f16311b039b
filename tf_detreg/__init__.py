"""tf_detreg: deep metric learning for Keras with determinant regularization.

Images go in, unit vectors come out whose nearest neighbours are the right ones, also for classes never seen before.
The rooms of the package stand in the order in which data flows through them::

    datasets -> backbones -> heads -> losses + miners + regularizers -> training -> retrieval -> analysis / export

Importing the package loads TensorFlow and Keras, so that ``keras.models.load_model`` knows our layers, and nothing
heavier: TensorFlow Probability, ScaNN, plotting and scikit-learn are loaded by the functions that use them.
"""

import importlib
import multiprocessing
import os
import signal
import sys

if os.path.basename(sys.argv[0]) == "tf-detreg":
    # Whoever runs the command wants its results, not TensorFlow's log of how it starts. Read at the first import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # While TensorFlow is loaded there is nothing to tidy up: Ctrl-C ends the process, without a traceback. `cli.main`
    # takes it up again; the processes that a command starts never call it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and multiprocessing.parent_process() is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tf_detreg needs Keras' TensorFlow backend, but Keras runs on {keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first `import keras`."
    )

from tf_detreg import backbones, heads, losses, miners, regularizers, training
from tf_detreg.models import load

__version__ = "0.1.0"

_ON_DEMAND = ("analysis", "callbacks", "datasets", "experiments", "export", "retrieval", "serving")

__all__ = ["backbones", "heads", "load", "losses", "miners", "regularizers", "training", *_ON_DEMAND]


def __getattr__(name: str):
    if name in _ON_DEMAND:
        return importlib.import_module(f"tf_detreg.{name}")
    raise AttributeError(f"module 'tf_detreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])

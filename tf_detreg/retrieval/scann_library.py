"""ScaNN's two libraries: the searchers, which need no TensorFlow, and its TensorFlow operations, which need its own.

The package `scann` loads both when it is imported, and fails as a whole beside any TensorFlow but the one that its
operations were built for (scann 1.4.2: TensorFlow 2.20). So the searchers are imported here past the package's
`__init__`, in some 20 ms; `docs/compatibility.md` says beside which
TensorFlow they were run.
"""

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

_SEARCHERS = "scann.scann_ops.py.scann_ops_pybind"
_LOCK = threading.Lock()


def searchers() -> ModuleType:
    """Return the module `scann_ops_pybind`, without TensorFlow's operations.

    Raises:
        ModuleNotFoundError: If ScaNN is not installed.
        Exception: Whatever ScaNN's library fails with.
    """
    with _LOCK, _without_its_init():
        return importlib.import_module(_SEARCHERS)


@contextlib.contextmanager
def _without_its_init() -> Iterator[None]:
    """Put an empty package `scann` where modules inside it look for it, unless the real one is loaded already."""
    spec = importlib.util.find_spec("scann")
    if spec is None:
        raise ModuleNotFoundError("No module named 'scann'", name="scann")
    if "scann" in sys.modules:
        yield
        return
    package = ModuleType("scann")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["scann"] = package
    try:
        yield
    finally:
        # Whoever imports scann afterwards gets all of it.
        del sys.modules["scann"]


def operations() -> ModuleType:
    """Return the module `scann_ops`: ScaNN as operations of TensorFlow, which a SavedModel can hold.

    Raises:
        ImportError: If ScaNN is not installed, or was built for another TensorFlow.
    """
    import tensorflow as tf

    from tf_detreg import extras

    try:
        with extras.needed("A ScaNN SavedModel"):
            from scann.scann_ops.py import scann_ops
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(
            "A ScaNN SavedModel needs ScaNN's TensorFlow operations, which load beside TensorFlow 2.20 alone; this is "
            f"TensorFlow {tf.__version__}. Run: pip install 'tensorflow~=2.20.0' 'tf-keras~=2.20.0', or use "
            f'engine="exact". ({error})'
        ) from error
    result: ModuleType = scann_ops
    return result

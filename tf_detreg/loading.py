"""TensorFlow, loaded when a command needs it and not before."""

import contextlib
import importlib
import signal
import sys


def load_tensorflow() -> None:
    """Load TensorFlow and our layers, with a line on a terminal: it takes seconds.

    There is nothing to tidy up meanwhile: Ctrl-C ends the process, without a traceback.
    """
    if "tf_detreg._layers" in sys.modules:
        return
    with contextlib.suppress(AttributeError, ValueError, OSError):
        if sys.stderr.isatty():
            print("Loading TensorFlow …", file=sys.stderr, flush=True)
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        importlib.import_module("tf_detreg._layers")
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

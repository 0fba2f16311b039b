"""What a command says when something is wrong: notes of the library's log, and errors in a line."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator

# What our own code raises inside a `tf.data` pipeline comes out as an error of TensorFlow, around Python's report.
_INSIDE = re.compile(
    r"(?:ValueError|OSError|UnreadableImage): (.*?)\s*\nTraceback \(most recent call last\)", re.DOTALL
)


def explain(error: Exception) -> str | None:
    """Return what to tell the user about an error; None if it is none that he can mend.

    Example:
        >>> explain(ValueError("epochs must be 1 or more.")), explain(KeyError("x"))
        ('epochs must be 1 or more.', None)
    """
    if isinstance(error, ValueError | OSError | ImportError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        what = str(error).partition("\n")[0].rpartition("}} ")[2]
        return (
            f"The memory is full ({what or 'Python'}). Lower --image-size, --classes or --images, or the model's width."
        )
    inside = _INSIDE.search(str(error)) if type(error).__module__.startswith("tensorflow.") else None
    return inside[1] if inside else None


@contextlib.contextmanager
def show_log() -> Iterator[None]:
    """Show the library's notes and warnings on standard error, each text once, while the block runs."""
    log, handler = logging.getLogger("tf_detreg"), logging.StreamHandler(sys.stderr)
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        known = text in seen
        seen.add(text)
        return not known

    handler.addFilter(is_new)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate

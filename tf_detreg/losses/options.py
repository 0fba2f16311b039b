"""Checks of numbers that losses and miners are made with, in the words of `heads.checks`."""

import inspect
import math
import numbers
from typing import Any


def number(name: str, value: float) -> float:
    """Return the value, or raise a `ValueError` that names it if it is not a finite number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be finite, received {value!r}.")
    return value


def not_negative(name: str, value: float) -> float:
    """Return the value, or raise a `ValueError` that names it if it is not a finite number, 0 or more."""
    if number(name, value) < 0:
        raise ValueError(f"{name} must not be negative, received {value!r}.")
    return value


def positive(name: str, value: float) -> float:
    """Return the value, or raise a `ValueError` that names it if it is not a finite number above 0."""
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be finite and above 0, received {value!r}.")
    return value


def at_least(name: str, value: int, smallest: int) -> int:
    """Return the value as an integer, or raise a `ValueError` that names it if it is smaller or has a fraction."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value != int(value) or value < smallest:
        raise ValueError(f"{name} must be a whole number, {smallest} or more, received {value!r}.")
    return int(value)


def described(thing: Any) -> str:
    """Return the call that makes a loss or miner, with all of its settings but its name."""
    config = thing.get_config()
    parts = []
    for name in inspect.signature(type(thing)).parameters:
        if name in config and name not in ("name", "dtype"):
            # Losses and miners inside are shown as they are, and not as they are saved.
            value = getattr(thing, name) if name in ("loss", "miner") else config[name]
            parts.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(parts)})"

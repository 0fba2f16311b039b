"""Checks of numbers that losses are made with."""

import math
import numbers


def positive(name: str, value: float) -> float:
    """The value, or a `ValueError` that names it if it is not a finite number above 0."""
    if not isinstance(value, numbers.Real) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive, received {value!r}.")
    return value


def at_least(name: str, value: int, smallest: int) -> int:
    """The value as an integer, or a `ValueError` that names it if it is smaller or has a fraction."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value != int(value) or value < smallest:
        raise ValueError(f"{name} must be a whole number of at least {smallest}, received {value!r}.")
    return int(value)

"""Checks of arguments for the whole package, in one wording.

Each failure is a `ValueError` that says the argument's name in backticks, what it must be and what was received, and
where it helps what to do: "`dim` must be a whole number, 2 or more; received 1." `invalid` makes that sentence for what
is checked in one function alone.
"""

import math
import numbers
from collections.abc import Collection
from typing import Any, TypeVar

_MOST_CHARACTERS = 200

_Kind = TypeVar("_Kind")


def invalid(name: str, allowed: str, received: str, hint: str = "") -> ValueError:
    """Return the error that says what an argument must be and what it is.

    Args:
        name: The argument's name.
        allowed: What follows "must", such as `"be a whole number"`.
        received: What follows "received", such as `"shape (3,)"`; `shown(value)` for the value itself.
        hint: Sentences on what to do. Default: none.

    Example:
        >>> str(invalid("size", "be two numbers", shown(3), "Give (height, width)."))
        '`size` must be two numbers; received 3. Give (height, width).'
    """
    return ValueError(f"`{name}` must {allowed}; received {received}.{' ' if hint else ''}{hint}")


def shown(value: object) -> str:
    """Return how a value is written in a message: its `repr`, cut after 200 characters."""
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def listed(choices: Collection[object]) -> str:
    """Return how a choice is written in a message.

    Example:
        >>> listed(["mean", "sum"])
        "one of 'mean', 'sum'"
    """
    return f"one of {', '.join(map(repr, choices))}"


def is_finite(value: object) -> bool:
    """Return whether `value` is a number, and neither a bool nor NaN nor infinite."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> float:
    """Return a number as one that JSON can hold; an `int` stays one."""
    return value if isinstance(value, int) else float(value)


def number(name: str, value: object) -> float:
    """Return `value` if it is a finite number.

    Example:
        >>> number("margin", float("nan"))
        Traceback (most recent call last):
        ValueError: `margin` must be a finite number; received nan.
    """
    if not is_finite(value):
        raise invalid(name, "be a finite number", shown(value))
    return _plain(value)


def positive(name: str, value: Any) -> float:
    """Return `value` if it is a finite number above 0."""
    if not is_finite(value) or value <= 0:
        raise invalid(name, "be a finite number above 0", shown(value))
    return _plain(value)


def not_negative(name: str, value: Any) -> float:
    """Return `value` if it is a finite number, 0 or more."""
    if not is_finite(value) or value < 0:
        raise invalid(name, "be a finite number, 0 or more", shown(value))
    return _plain(value)


def within(name: str, value: Any, low: float, high: float, ends: str = "[]") -> float:
    """Return `value` if it is a number of an interval.

    Args:
        name: The argument's name.
        value: What was received.
        low: Where the interval begins.
        high: Where it ends.
        ends: Whether its ends belong to it, as they are written: `"[]"` (default), `"(]"`, `"[)"` or `"()"`.

    Example:
        >>> within("dropout", 1.0, 0, 1, "[)")
        Traceback (most recent call last):
        ValueError: `dropout` must be a number in [0, 1); received 1.0.
    """
    if not is_finite(value) or not low <= value <= high or value in _open_ends(low, high, ends):
        raise invalid(name, f"be a number in {ends[0]}{low}, {high}{ends[1]}", shown(value))
    return _plain(value)


def _open_ends(low: float, high: float, ends: str) -> list[float]:
    return [end for end, sign, opened in ((low, ends[0], "("), (high, ends[1], ")")) if sign == opened]


def integer(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Return `value` as an `int` if it is one, from `least` to `most`; neither 2.0 nor True is.

    Example:
        >>> integer("k", 0, 1)
        Traceback (most recent call last):
        ValueError: `k` must be a whole number, 1 or more; received 0.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f", {least} or more" if most is None else f" from {least} to {most}"
        raise invalid(name, f"be a whole number{allowed}", shown(value))
    return int(value)


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of the words `choices`.

    Example:
        >>> choice("trace", "exactly", ("exact", "hutchinson"))
        Traceback (most recent call last):
        ValueError: `trace` must be one of 'exact', 'hutchinson'; received 'exactly'.
    """
    if not isinstance(value, str) or value not in choices:
        raise invalid(name, f"be {listed(choices)}", shown(value))
    return value


def flag(name: str, value: object) -> bool:
    """Return `value` if it is true or false."""
    if not isinstance(value, bool):
        raise invalid(name, "be true or false", shown(value))
    return value


def instance(name: str, value: object, kind: type[_Kind], what: str, hint: str = "") -> _Kind:
    """Return `value` if it is an object of a class.

    Args:
        name: The argument's name.
        value: What was received.
        kind: The class.
        what: What the message calls it, such as `"a head such as heads.RealNVP"`.
        hint: Sentences on what to do. Default: none.

    Example:
        >>> instance("path", 3, str, "text")
        Traceback (most recent call last):
        ValueError: `path` must be text; received 3.
    """
    if not isinstance(value, kind):
        raise invalid(name, f"be {what}", shown(value), hint)
    return value

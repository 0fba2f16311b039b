"""Former names that still work: the one mechanism by which the package renames arguments, attributes and modules.

What was public under a name in one version keeps working under it in the next, with a `DeprecationWarning` that says
the new one, and goes in the version after that.
"""

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

REMOVED_IN = "0.3"
"""The version in which today's former names go."""

Function = TypeVar("Function", bound=Callable[..., Any])


def warn(old: str, new: str, stacklevel: int = 2) -> None:
    """Warn that a name has changed.

    Args:
        old: The former name.
        new: The present one.
        stacklevel: Whose line the warning names, counted from the caller of this function, who is 1. Default 2.
    """
    text = f"`{old}` is `{new}` now; the former name goes in version {REMOVED_IN}."
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


def renamed_arguments(**names: str) -> Callable[[Function], Function]:
    """Make a function take arguments by their former names too.

    Args:
        **names: Former name → present name.

    Example:
        >>> @renamed_arguments(licence="license")
        ... def card(license="unknown"):
        ...     return license
        >>> with warnings.catch_warnings(action="ignore"):
        ...     card(licence="CC0")
        'CC0'
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs or new in inspect.signature(function).bind_partial(*args).arguments:
                    raise TypeError(f"{function.__name__}() got `{new}` twice, once by its former name `{old}`.")
                warn(f"{function.__name__}({old}=)", f"{function.__name__}({new}=)")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return cast(Function, renamed)

    return decorate


def ignored_arguments(*names: str, because: str) -> Callable[[Function], Function]:
    """Make a constructor take, and ignore, arguments that it has no longer.

    Args:
        *names: Of the arguments.
        because: Why they have no effect, as a part of a sentence.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def ignoring(self: Any, *args: Any, **kwargs: Any) -> Any:
            for name in names:
                if kwargs.pop(name, None) is not None:
                    text = (
                        f"`{name}` has no effect on {type(self).__name__}, {because}; it will be an error in version "
                        f"{REMOVED_IN}."
                    )
                    warnings.warn(text, DeprecationWarning, stacklevel=2)
            return function(self, *args, **kwargs)

        # Keras reads what a constructor takes without looking behind decorators.
        ignoring.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # functions have it
        return cast(Function, ignoring)

    return decorate


class RenamedAttribute:
    """Answer for the former name of an attribute or method.

    Args:
        new: The present name.

    Example:
        >>> class Report:
        ...     neighbor_recall = 1.0
        ...     neighbour_recall = RenamedAttribute("neighbor_recall")
        >>> with warnings.catch_warnings(action="ignore"):
        ...     Report().neighbour_recall
        1.0
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old, self.owner = name, owner.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None and not hasattr(owner, self.new):
            return self
        warn(f"{self.owner}.{self.old}", f"{self.owner}.{self.new}")
        return getattr(owner if instance is None else instance, self.new)


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that answers for former names.

    Args:
        module: The module's own name.
        names: Former name → where it is now: `"package.module:name"`, or `"package.module"` for a module.
    """

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        where, _, what = names[name].partition(":")
        warn(f"{module}.{name}", names[name].replace(":", "."))
        found = importlib.import_module(where)
        return getattr(found, what) if what else found

    return __getattr__

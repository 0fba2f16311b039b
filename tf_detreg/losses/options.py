"""How losses and miners are shown: with the settings that they were made with."""

import inspect
from typing import Any


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

"""Where data files are looked for, and where things that can be made again are kept."""

from __future__ import annotations

import os
import pathlib
import sys


def cache_folder() -> pathlib.Path:
    """Return the folder for tf_detreg's caches; it need not exist yet.

    `$TF_DETREG_CACHE` if set and not blank, with `~` for the home folder; else the platform's cache folder:
    `$XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows, with
    `tf_detreg` in it.
    """
    chosen = os.environ.get("TF_DETREG_CACHE", "").strip()
    if chosen:
        return pathlib.Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = pathlib.Path.home() / "Library" / "Caches"
    else:
        # The XDG rules: a relative path is invalid and is ignored.
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "tf_detreg"


def find_data(name: str) -> pathlib.Path:
    """Return a data file by its name: as given, or in the folder that `$TF_DETREG_DATA` names.

    Args:
        name: A path, or a name in that folder.

    Raises:
        FileNotFoundError: If it is in neither.
    """
    folder = os.environ.get("TF_DETREG_DATA", "")
    for path in (pathlib.Path(name), pathlib.Path(folder or ".") / name):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"`name`: {name!r} is neither here nor in TF_DETREG_DATA={folder!r}. Set TF_DETREG_DATA to the folder "
        "that holds it; examples/rebuild_emoji_set.py makes an emoji set."
    )

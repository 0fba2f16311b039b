"""A quick look at files before training: is it a picture at all, and does it end where it should?"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tf_detreg.images.formats import EXTENSIONS as EXTENSIONS
from tf_detreg.images.formats import UnreadableImage, open_image
from tf_detreg.images.formats import is_image_name as is_picture_name  # noqa: F401 - for loaders
from tf_detreg.progress import ticker

logger = logging.getLogger(__name__)


def problem(path: str) -> str | None:
    """Why a file cannot be a whole picture, from its first and last bytes; None if nothing speaks against it.

    What only a full decoding shows is found when the file's turn comes, and is skipped and counted then.
    """
    try:
        if os.path.getsize(path) == 0:
            return "the file is empty"
        with open_image(path) as image:
            kind = image.format
        # A PNG ends in its IEND chunk; one that was cut off does not.
        if kind == "PNG" and b"IEND" not in _tail(path, 64):
            return "the PNG is cut off"
    except UnreadableImage as error:
        return str(error).removeprefix(f"{path}: ")
    except Exception as error:  # the file may be gone, or may not be read
        return f"{type(error).__name__}: {error}"
    return None


def _tail(path: str, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(size, os.path.getsize(path)), os.SEEK_END)
        return file.read()


def sift(paths: Iterable[str], what: str, look: Callable[[str], str | None] = problem) -> dict[str, str]:
    """path → problem, for the files that have one; logs how many there are and names the first."""
    paths = list(paths)
    bad = {}
    with ThreadPoolExecutor() as pool, ticker("Looking at the files", len(paths)) as tick:
        for path, reason in zip(paths, pool.map(look, paths, chunksize=64), strict=True):
            tick(1)
            if reason is not None:
                bad[path] = reason
    if bad:
        shown = "\n  ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:20])
        more = "\n  …" if len(bad) > 20 else ""
        logger.warning(
            "%s: left out %d of %d files that are no pictures:\n  %s%s", what, len(bad), len(paths), shown, more
        )
    return bad

"""A quick look at files before training: is it a picture at all, and does it end where it should?"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tf_detreg.images import is_image_name
from tf_detreg.images.reference import problem
from tf_detreg.progress import ticker

logger = logging.getLogger(__name__)


def sift(paths: Iterable[str], what: str, look: Callable[[str], str | None] = problem) -> dict[str, str]:
    """Return path → problem, for the files that have one; log how many there are and name the first."""
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


def passed_over(paths: Iterable[str], what: str) -> dict[str, str]:
    """Return path → reason of the files that are no images by their names; log how many there are of each ending."""
    found = {path: "no image by its name" for path in paths if not is_image_name(os.path.basename(path))}
    endings = Counter(os.path.splitext(path)[1].lower() or "no ending" for path in found)
    if found:
        shown = ", ".join(f"{count} × {ending}" for ending, count in endings.most_common(10))
        first = ", ".join(list(found)[:5]) + (", …" if len(found) > 5 else "")
        logger.warning(
            "%s: left out %d files that are no images by their names (%s): %s", what, len(found), shown, first
        )
    return found

"""A quick look at files before training: is it a picture at all, and does it end where it should?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tf_detreg.images.reference import problem
from tf_detreg.progress import ticker

logger = logging.getLogger(__name__)


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

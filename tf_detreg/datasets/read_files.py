"""Files of a data set to pixels, by index: what cannot be read is counted and named, never guessed at."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import numpy as np

from tf_detreg import checks
from tf_detreg.images.formats import UnreadableImage
from tf_detreg.images.geometry import RandomCrop
from tf_detreg.images.reference import read
from tf_detreg.images.threads import each

logger = logging.getLogger(__name__)


class SkipLog:
    """Count distinct unreadable files, and stop the run when they are more than a stated share."""

    def __init__(self, total: int, share: float, what: str) -> None:
        checks.within("max_unreadable", share, 0, 1)
        self.total, self.share, self.what = total, share, what
        self.reasons: dict[int, str] = {}
        self._reported = 0
        self._lock = threading.Lock()

    def add(self, index: int, reason: str) -> None:
        with self._lock:
            if index in self.reasons:
                return
            self.reasons[index] = reason
            logger.warning("Skipped an unreadable image: %s", reason)
            if len(self.reasons) > self.share * self.total:
                raise ValueError(
                    f"{len(self.reasons)} of the {self.total} images of {self.what} cannot be read, more than the "
                    f"stated share of {self.share:.1%}. Repair or remove them, or raise `max_unreadable`. "
                    f"The last one: {reason}"
                )

    def report(self) -> None:
        """Name what was skipped, once."""
        with self._lock:
            reasons = list(self.reasons.values())
            if len(reasons) == self._reported:
                return
            self._reported = len(reasons)
        shown = "\n  ".join(reasons[:20]) + ("\n  …" if len(reasons) > 20 else "")
        logger.warning("%d unreadable images of %s were skipped:\n  %s", len(reasons), self.what, shown)


def decode_batch(
    paths: Sequence[str],
    indices: np.ndarray,
    size: tuple[int, int],
    skips: SkipLog,
    crop: RandomCrop | None = None,
    draws: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read `paths[i]` for each i of `indices`, on all cores; `draws` (B, 4) in [0, 1) say where random crops lie.

    Returns:
        uint8 (B, height, width, 3), and a mask (B,) of those that could be read; the others are zero and in `skips`.
    """
    images = np.zeros((len(indices), *size, 3), np.uint8)
    good = np.zeros(len(indices), bool)

    def read_one(at: int) -> None:
        index = int(indices[at])
        if index in skips.reasons:
            return
        try:
            images[at] = read(paths[index], size, crop, None if draws is None else draws[at])
            good[at] = True
        except UnreadableImage as error:
            skips.add(index, str(error))

    each(read_one, range(len(indices)))
    return images, good

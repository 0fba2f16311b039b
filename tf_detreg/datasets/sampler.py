"""Which images make up which batch: P classes × K images, from a seed and an epoch alone."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks

logger = logging.getLogger(__name__)

_PIECE = 1 << 18
_CLASSES, _IMAGES, _SEEDS = range(3)  # what a stream of random numbers is for


class Batch(NamedTuple):
    """Indices (P·K,) int64, and a seed (2,) int32 for whatever is random in the batch (crops, augmentation)."""

    indices: np.ndarray
    seed: np.ndarray


class ClassSampler:
    """Draws batches of P classes × K images.

    The classes come in rounds: each round is a fresh random order of *all* classes, so none comes twice before every
    other has come once, and no batch holds a class twice. Inside a class the images come in a random order too, each
    once before any repeats; a class with fewer than K images repeats its own. Rounds and classes go on in an epoch
    where the last one stopped, so that all images of a large class are seen. An epoch is as many batches as the set has
    images for, and at least one whole round. Everything follows from (`seed`, epoch), so a run can resume anywhere.

    Args:
        labels: Integers (N,).
        classes: P; lowered with a warning to the number of classes there are.
        images: K.
        seed: Of everything random.

    Raises:
        ValueError: For an empty set or non-positive P or K.

    Example:
    >>> from tf_detreg.datasets.sampler import ClassSampler
    >>> sampler = ClassSampler([0, 0, 1, 1, 2, 2], classes=3, images=2)
    >>> [sorted(batch.indices.tolist()) for batch in sampler.epoch(0)]
    [[0, 1, 2, 3, 4, 5]]
    """

    def __init__(self, labels: ArrayLike, classes: int = 32, images: int = 4, seed: int = 0) -> None:
        labels = np.asarray(labels)
        if not len(labels):
            raise checks.invalid("labels", "hold an image to draw batches from", "none")
        classes, images = checks.integer("classes", classes, 1), checks.integer("images", images, 1)
        counts = _count(labels)
        self.present = np.flatnonzero(counts)
        self.classes = min(int(classes), len(self.present))
        if self.classes < classes:
            logger.warning("The set has %d classes: batches hold %d classes, not %d.", *(2 * [self.classes]), classes)
        self.images, self.seed = int(images), checks.integer("seed", seed)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._members = _by_class(labels, self._starts[:-1])
        rounds = -(-len(self.present) // self.classes)
        self.steps = max(rounds, round(len(labels) / (self.classes * self.images)))
        # After so many batches a round ends together with a batch: there the order of classes begins anew.
        self._cycle = len(self.present) // math.gcd(len(self.present), self.classes)

    @property
    def batch_size(self) -> int:
        return self.classes * self.images

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: Its number, from 0.
        """
        first = int(epoch) * self.steps
        drawn = self._draws_before(first)
        # Each class' members in the order of its current pass, and the number of that pass; -1: not drawn yet.
        members, passes = self._members.copy(), np.full(len(self._starts) - 1, -1, np.int64)
        seeds = np.random.default_rng([self.seed, _SEEDS, int(epoch)])
        for batch in itertools.islice(self._class_batches(first), self.steps):
            indices = np.concatenate([self._draw(c, int(drawn[c]), members, passes) for c in batch.tolist()])
            drawn[batch] += 1
            yield Batch(indices.astype(np.int64), seeds.integers(2**31 - 1, size=2, dtype=np.int32))

    def _draws_before(self, batch: int) -> np.ndarray:
        """Return how often each class is drawn before a batch: in each full cycle as often as the others."""
        cycles, rest = divmod(batch, self._cycle)
        counts = np.full(len(self._starts) - 1, cycles * self._cycle * self.classes // len(self.present), np.int64)
        for classes in itertools.islice(self._class_batches(batch - rest), rest):
            counts[classes] += 1
        return counts

    def _class_batches(self, batch: int) -> Iterator[np.ndarray]:
        """Yield the classes of each batch from number `batch` on."""
        cycle, skipped = divmod(batch, self._cycle)
        while True:
            yield from itertools.islice(self._class_cycle(cycle), skipped, None)
            cycle, skipped = cycle + 1, 0

    def _class_cycle(self, cycle: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([self.seed, _CLASSES, cycle])
        queue = rng.permutation(self.present)
        for _ in range(self._cycle):
            if len(queue) < self.classes:
                # Classes left from this round go first; in the next round they come last, so no batch holds one twice.
                fresh = rng.permutation(self.present)
                again = np.isin(fresh, queue)
                queue = np.concatenate([queue, fresh[~again], fresh[again]])
            yield queue[: self.classes]
            queue = queue[self.classes :]

    def _draw(self, label: int, draw: int, members: np.ndarray, passes: np.ndarray) -> np.ndarray:
        """Return the images of a class at its draw number `draw`: pass after pass over all, each in another order."""
        where = slice(self._starts[label], self._starts[label + 1])
        own, size = members[where], self._starts[label + 1] - self._starts[label]
        picked, at, end = [], draw * self.images, (draw + 1) * self.images
        while at < end:
            number, begin = divmod(at, size)
            if passes[label] != number:
                rng = np.random.default_rng([self.seed, _IMAGES, label, number])
                own[:] = rng.permutation(self._members[where])
                passes[label] = number
            picked.append(own[begin : begin + end - at].copy())
            at += len(picked[-1])
        return np.concatenate(picked)


class ShuffledSampler:
    """Draws batches of images whatever their classes: each once an epoch, in a fresh order.

    What does not fill a batch is left out of the epoch. Everything follows from (`seed`, epoch).

    Args:
        labels: Integers (N,).
        batch_size: Lowered to N.
        seed: Of everything random.

    Raises:
        ValueError: For an empty set or a batch size below 1.

    Example:
        >>> [sorted(batch.indices.tolist()) for batch in ShuffledSampler([0, 0, 1, 1], batch_size=4).epoch(0)]
        [[0, 1, 2, 3]]
    """

    def __init__(self, labels: ArrayLike, batch_size: int, seed: int = 0) -> None:
        count = len(np.asarray(labels))
        if not count:
            raise checks.invalid("labels", "hold an image to draw batches from", "none")
        batch_size = checks.integer("images", batch_size, 1)
        self.count, self.seed = count, checks.integer("seed", seed)
        self.batch_size = min(int(batch_size), self.count)
        self.steps = self.count // self.batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        rng = np.random.default_rng([self.seed, int(epoch)])
        order = rng.permutation(self.count)
        for first in range(0, self.steps * self.batch_size, self.batch_size):
            indices = order[first : first + self.batch_size].astype(np.int64)
            yield Batch(indices, rng.integers(2**31 - 1, size=2, dtype=np.int32))


def sampler(labels: ArrayLike, classes: int, images: int, seed: int) -> ClassSampler | ShuffledSampler:
    """Return the sampler of P classes × K images, or with P = 0 of K images whatever their classes."""
    if classes == 0:
        return ShuffledSampler(labels, images, seed)
    return ClassSampler(labels, classes, images, seed)


def _pieces(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield parts of the labels, each with the index of its first: what numpy makes of one is small."""
    for begin in range(0, len(labels), _PIECE):
        yield begin, labels[begin : begin + _PIECE]


def _count(labels: np.ndarray) -> np.ndarray:
    """Return images of each class."""
    classes = int(labels.max()) + 1
    found = np.zeros(classes, np.int64)
    for _, piece in _pieces(labels):
        found += np.bincount(piece, minlength=classes)
    return found


def _by_class(labels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return int32 indices in the order of their labels: a counting sort that needs no second array of their number.

    Args:
        labels: (N,).
        starts: (C,), where each class begins in the result.
    """
    members, free = np.empty(len(labels), np.int32), starts.copy()
    for begin, piece in _pieces(labels):
        order = np.argsort(piece, kind="stable")
        ranked = piece[order]
        firsts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        sizes = np.diff(firsts, append=len(piece))
        classes = ranked[firsts]
        members[np.repeat(free[classes] - firsts, sizes) + np.arange(len(piece))] = order + begin
        free[classes] += sizes
    return members

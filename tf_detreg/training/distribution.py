"""Where a run takes place: in this process, on several devices, or on several machines."""

import contextlib
import dataclasses
from collections.abc import Iterator

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Place:
    """A strategy and this process' part in it.

    Args:
        strategy: TensorFlow's distribution strategy.
        chief: Whether this process writes the run directory.
    """

    strategy: tf.distribute.Strategy
    chief: bool = True

    def distribute(self, dataset: tf.data.Dataset):
        """The dataset as this place consumes it: every replica gets its rows of each global batch."""
        return dataset


@contextlib.contextmanager
def scope(name: str) -> Iterator[Place]:
    """The place that a configuration names.

    Args:
        name: `""`, `"mirrored"` or `"multiworker"`.
    """
    yield Place(tf.distribute.get_strategy())

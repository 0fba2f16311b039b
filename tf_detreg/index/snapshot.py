"""One state of an index: what a reader sees from its begin to its end."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tf_detreg.index.segments import Segment


class Snapshot(NamedTuple):
    """One state of an index.

    Args:
        version: Counts the changes.
        facts: Dimension, model, tree and what else is known of the whole.
        parts: The segments, in the order of their rows.
    """

    version: int
    facts: Mapping[str, Any]
    parts: tuple[Segment, ...]

    @property
    def live(self) -> int:
        """Return how many items there are."""
        return sum(part.live for part in self.parts)

    @property
    def end(self) -> int:
        """Return the row number of the next item."""
        return int(self.facts["end"])

    @property
    def tree(self) -> dict[str, Any] | None:
        """Return what is known about the tree."""
        tree: dict[str, Any] | None = self.facts["tree"]
        return tree

    @property
    def fields(self) -> tuple[str, ...]:
        """Return fields of the metadata that have an index."""
        return tuple(self.facts["fields"])

"""The type of a shape, as Keras hands it to layers."""

Shape = tuple[int | None, ...]
"""Sizes of the axes of a tensor; `None` for a size that is known only when the graph runs."""

"""Functions of rows as graphs that run on as many rows at a time as a stated memory holds."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

MEMORY = 0.6  # gigabytes
MOST = 256  # rows of a step, so that progress is seen
_GIGA = 2**30


class BoundedMap:
    """A function of batches that is run on a few rows at a time.

    Run eagerly, a deep model keeps every layer's values until its end, and its derivatives keep them for longer: 0.1 to
    0.4 GB for an image of 224 px in EfficientNet-Lite0. As a graph, TensorFlow frees a value after its last use; what
    is held at once for one row is found by going through the graph in order, before anything is computed.

    Args:
        function: Takes tensors `(B, …)`, any B, and returns tensors `(B, …)`. Its trace is kept.
        *examples: Tensors that show shapes and types of the arguments, of any number of rows.
        memory: Gigabytes that a step may take. Default 0.6.

    Attributes:
        needs: Gigabytes that one row takes.
        rows: How many rows are run at a time, at least one.
        fits: Whether one row takes no more than `memory`.
        width: Length of the last dimension of what the function returns; None for several tensors.

    Example:
        >>> double = BoundedMap(lambda x: 2 * x, tf.ones((5, 3)), memory=48 / 2**30)
        >>> double.rows, [part.shape[0] for part in double.parts(tf.ones((5, 3)))]
        (2, [2, 2, 1])
    """

    def __init__(self, function: Callable[..., Any], *examples: tf.Tensor, memory: float = MEMORY) -> None:
        specs = [tf.TensorSpec((None, *example.shape[1:]), example.dtype) for example in examples]
        self._run = tf.function(function).get_concrete_function(*specs)
        held = peak_bytes(self._run.graph)
        self.needs = held / _GIGA
        self.rows = int(np.clip(memory * _GIGA // max(1, held), 1, MOST))
        self.fits = self.needs <= memory
        self.width = getattr(self._run.structured_outputs, "shape", (None,))[-1]

    def __call__(self, *rows: tf.Tensor) -> Any:
        """Run on rows that are `rows` at most."""
        return self._run(*rows)

    def parts(self, *tensors: tf.Tensor) -> Iterator[Any]:
        """Yield the tensors, as many rows at a time as may be run."""
        for first in range(0, len(tensors[0]), self.rows):
            part = tuple(tensor[first : first + self.rows] for tensor in tensors)
            yield part if len(part) > 1 else part[0]


def peak_bytes(graph: tf.Graph) -> int:
    """Return how many bytes a graph holds at most for one row, if each value is freed after its last use.

    Inputs are included. Unknown dimensions count as 1, which is what the batch is for one row. Weights do not count.
    """
    operations = [op for op in graph.get_operations() if op.type not in ("Const", "ReadVariableOp")]
    last = {tensor.ref(): n for n, op in enumerate(operations) for tensor in op.inputs}
    dying: dict[int, int] = {}
    held = peak = 0
    for n, op in enumerate(operations):
        for tensor in op.outputs:
            size = _bytes(tensor)
            held += size
            end = last.get(tensor.ref(), n)
            dying[end] = dying.get(end, 0) + size
        peak = max(peak, held)
        held -= dying.pop(n, 0)
    return peak


def _bytes(tensor: tf.Tensor) -> int:
    if tensor.shape.rank is None or tensor.dtype.size == 0 or tensor.dtype == tf.resource:
        return 0
    count = 1
    for side in tensor.shape:
        count *= 1 if side is None else side
    return int(count * tensor.dtype.size)


def forward_map(function: Callable[..., Any], x: tf.Tensor, memory: float) -> BoundedMap:
    """Return the map alone, which runs on one row at least, whatever the memory: what the model itself needs."""
    return BoundedMap(lambda x: in_full(function, x), x, memory=memory)


def batched(forward: BoundedMap, x: tf.Tensor, tick: Callable[[int], None] = lambda rows: None) -> tf.Tensor:
    """Return a map's values at all rows, a few at a time; `tick` is called with their number."""
    found = []
    for rows in forward.parts(x):
        found.append(forward(rows))
        tick(len(rows))
    return tf.concat(found, axis=0)


def in_full(function: Callable[..., tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Return the map's values in the precision of its inputs, also where layers compute in half."""
    return tf.cast(function(x), x.dtype)


def flat(x: tf.Tensor) -> tf.Tensor:
    """Return each row as a vector."""
    return tf.reshape(x, (tf.shape(x)[0], -1))

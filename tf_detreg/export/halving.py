"""The large weights of a `.tflite` model as float16, the small ones left as they are."""

import collections
from typing import Any

import numpy as np

from tf_detreg import extras
from tf_detreg.export.flatfiles import code_of, packed, unpacked

LEAST_ELEMENTS = 4096


def halve(model: bytes, least_elements: int = LEAST_ELEMENTS) -> bytes:
    """Return a float32 model with its large constants stored as float16.

    A `DEQUANTIZE` op makes float32 of each such constant again, once; the arithmetic stays in float32. What rounding
    costs hangs on a few small constants: the kernels of the first depthwise convolutions, into which batch norm has
    multiplied its scales. All small ones together are about a hundredth of the file, so constants of fewer than
    `least_elements` elements are left in float32. The converter's own float16 rounds everything.

    A constant that float16 cannot hold to its usual precision, because it overflows or becomes subnormal, stays too.

    Args:
        model: A float32 `.tflite` model, with any number of subgraphs.
        least_elements: The fewest elements of a constant that is halved. Default 4096.

    Returns:
        The model, with the same signatures, inputs and outputs.

    Raises:
        ValueError: If `model` is no `.tflite` model.

    Example:
        >>> import tensorflow as tf
        >>> product = tf.function(lambda x: x @ tf.ones((100, 100)), input_signature=[tf.TensorSpec((1, 100))])
        >>> concrete = product.get_concrete_function()
        >>> model = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
        >>> 20_000 < len(halve(model)) < 0.6 * len(model)
        True
    """
    content = unpacked(model)
    halved = {}
    for index in _large_constants(content, least_elements):
        half = _half(content.buffers[index].data)
        if half is not None:
            content.buffers[index].data = half
            halved[index] = code_of(content, "DEQUANTIZE", version=3)  # the first version that takes float16
    for graph in content.subgraphs:
        graph.operators = [*_restored(graph, halved), *graph.operators]
    return packed(content)


def _large_constants(content: Any, least_elements: int) -> list[int]:
    """Return the buffers that hold float32 constants alone. What a buffer serves besides must not see it change."""
    with extras.needed("A .tflite file"):
        from ai_edge_litert import schema_py_generated as schema

    owners = collections.defaultdict(list)
    for graph in content.subgraphs:
        for tensor in graph.tensors:
            plain = tensor.type == schema.TensorType.FLOAT32 and not tensor.isVariable and tensor.sparsity is None
            owners[tensor.buffer].append(plain)
    described = {entry.buffer for entry in content.metadata or []}
    return [
        index
        for index, plain in owners.items()
        if all(plain) and index not in described and _length(content.buffers[index]) >= 4 * least_elements
    ]


def _length(buffer: Any) -> int:
    return 0 if buffer.data is None else len(buffer.data)


def _half(data: np.ndarray) -> np.ndarray | None:
    """Return the bytes of the numbers as float16; None where it does not have them to its usual precision."""
    numbers = np.asarray(data, np.uint8).view(np.float32)
    with np.errstate(all="ignore"):
        half = numbers.astype(np.float16)
        error = np.square(half.astype(np.float64) - numbers).sum()
    # Half a unit in the last of float16's 11 bits. With infinities and NaN this is False.
    exact = error <= 2.0**-22 * np.square(numbers, dtype=np.float64).sum()
    return half.view(np.uint8) if exact else None


def _restored(graph: Any, halved: dict[int, int]) -> list[Any]:
    """Return the ops that make float32 of a subgraph's halved constants; other ops go on reading the same tensors."""
    with extras.needed("A .tflite file"):
        from ai_edge_litert import schema_py_generated as schema

    operators = []
    for index, tensor in enumerate(list(graph.tensors)):
        if tensor.buffer not in halved:
            continue
        stored = schema.TensorT()
        stored.name, stored.shape, stored.hasRank = tensor.name + b"/float16", tensor.shape, tensor.hasRank
        stored.type, stored.buffer = schema.TensorType.FLOAT16, tensor.buffer
        operator = schema.OperatorT()
        operator.opcodeIndex = halved[tensor.buffer]
        operator.inputs, operator.outputs = [len(graph.tensors)], [index]
        tensor.buffer = 0  # by the format's rule the empty buffer: the tensor is computed now
        graph.tensors.append(stored)
        operators.append(operator)
    return operators

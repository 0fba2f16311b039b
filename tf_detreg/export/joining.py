"""Two `.tflite` models in a row as one: the output of the first is the input of the second."""

from typing import Any

from tf_detreg.export.flatfiles import packed, unpacked


def join(first: bytes, second: bytes) -> bytes:
    """Return one model that runs `first`, then `second` on its output.

    The converter quantizes a model in one way throughout. Joining lets each part keep its own: int8 activations where
    they do no harm, float activations where they do. No number is touched, only indices are moved.

    Args:
        first: A model of one subgraph with one output.
        second: A model of one subgraph whose one input has that output's shape and type.

    Returns:
        The model, with the signature inputs of `first` and the signature outputs of `second`.

    Raises:
        ValueError: If the two do not fit.
    """
    head, tail = unpacked(first), unpacked(second)
    graph, added = head.subgraphs[0], tail.subgraphs[0]
    _check(head, tail)
    buffers, codes, tensors = len(head.buffers), len(head.operatorCodes), len(graph.tensors)
    link, given = int(graph.outputs[0]), int(added.inputs[0])

    def moved(tensor: int) -> int:
        """Return the new index of a tensor of the second graph; −1 stands for an input left out."""
        return link if tensor == given else int(tensor) + tensors if tensor >= 0 else -1

    for tensor in added.tensors:
        tensor.buffer += buffers
    for operator in added.operators:
        operator.opcodeIndex += codes
        operator.inputs = [moved(tensor) for tensor in operator.inputs]
        operator.outputs = [moved(tensor) for tensor in operator.outputs]
    head.buffers += tail.buffers
    head.operatorCodes += tail.operatorCodes
    graph.tensors += added.tensors
    graph.operators += added.operators
    graph.outputs = [moved(tensor) for tensor in added.outputs]
    for output in tail.signatureDefs[0].outputs:
        output.tensorIndex = moved(output.tensorIndex)
    head.signatureDefs[0].outputs = tail.signatureDefs[0].outputs
    return packed(head)


def _check(head: Any, tail: Any) -> None:
    graphs = [model.subgraphs for model in (head, tail)]
    if any(len(subgraphs) != 1 for subgraphs in graphs):
        raise ValueError("Only models of one subgraph can be joined: loops and branches have subgraphs of their own.")
    ((graph,), (added,)) = graphs
    if len(graph.outputs) != 1 or len(added.inputs) != 1:
        raise ValueError("`first` must have one output and `second` one input; received other models.")
    one, other = graph.tensors[int(graph.outputs[0])], added.tensors[int(added.inputs[0])]
    if list(one.shape) != list(other.shape) or one.type != other.type:
        raise ValueError(
            f"`second` must take what `first` gives, {list(one.shape)} of type {one.type}; received one that takes "
            f"{list(other.shape)} of type {other.type}."
        )

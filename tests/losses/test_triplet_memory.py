"""No triplet loss holds a tensor of all triplets, forward or backward."""

import pytest
import tensorflow as tf

from tf_detreg import losses

SIZE = 24
VARIANTS = {
    "all": losses.Triplet(),
    "soft": losses.Triplet(soft=True),
    "swap": losses.Triplet(swap=True),
    "direction": losses.Triplet(direction=0.3),
    "everything": losses.Triplet(soft=True, swap=True, direction=0.3, average="all", distance="squared"),
    "semi-hard": losses.Triplet(negatives="semi_hard"),
    "hard": losses.Triplet(negatives="hard"),
    "facenet": losses.TripletSemiHard(),
    "batch-hard": losses.TripletBatchHard(),
    "batch-hard-soft": losses.TripletBatchHard(soft=True),
}


def every_tensor(graph):
    """Results of all operations; inputs of loop bodies are some other operation's results."""
    for operation in graph.get_operations():
        if operation.type != "Placeholder":
            yield from operation.outputs
    for function in graph._functions.values():
        yield from every_tensor(function.graph)


def largest(loss) -> int:
    """Elements of the largest tensor in the graph of one training step, bodies of its loops included."""

    @tf.function
    def step(labels, embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return value, tape.gradient(value, embeddings)

    graph = step.get_concrete_function(tf.TensorSpec([SIZE], tf.int32), tf.TensorSpec([SIZE, 2], tf.float32)).graph
    tensors = [tensor for tensor in every_tensor(graph) if tensor.dtype not in (tf.variant, tf.resource)]
    sizes = {tensor.name: tensor.shape.num_elements() for tensor in tensors}
    assert None not in sizes.values(), [name for name, size in sizes.items() if size is None]
    return max(sizes.values())


@pytest.mark.parametrize("loss", VARIANTS.values(), ids=VARIANTS)
def test_no_tensor_is_larger_than_all_pairs(loss):
    assert largest(loss) == SIZE**2

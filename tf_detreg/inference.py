"""A model in inference mode as one graph, traced once for batches of every size."""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import _compat

Graph = Callable[[tf.Tensor], tf.Tensor]

_GRAPHS: weakref.WeakKeyDictionary[keras.Model, tuple[list[keras.Variable], Graph]] = weakref.WeakKeyDictionary()


def traced(model: keras.Model) -> Graph:
    """Return `model(inputs, training=False)` as a graph that is kept as long as the model.

    A `tf.function` made anew for each set of images is traced anew, and once more for a last, smaller batch: seconds a
    time for a deep model, and TensorFlow's warnings of retracing. This one is traced once for each shape of an item.

    Args:
        model: From a batch of items to a batch of vectors.

    Returns:
        A function of `(B, …)` tensors, any B.

    Example:
        >>> double = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])
        >>> run = traced(double)
        >>> run(tf.ones((3, 2))).shape, run(tf.ones((1, 2))).shape, traced(double) is run
        (TensorShape([3, 2]), TensorShape([1, 2]), True)
    """
    variables, run = _GRAPHS.get(model) or ([], None)
    now = model.variables
    # Other variables, as after `quantize`, make it another graph.
    if run is None or len(now) != len(variables) or any(a is not b for a, b in zip(now, variables, strict=True)):
        run = _graph(weakref.ref(model))
        _GRAPHS[model] = now, run
    return run


def _graph(model: Callable[[], keras.Model]) -> Graph:
    """Return the graph of a model, given as a weak reference: the graph does not keep it alive."""
    graph = any_batch(lambda inputs: model()(inputs, training=False))

    def run(inputs: tf.Tensor) -> tf.Tensor:
        # No gradient is taken through it, and one that stays registered would keep the model's weights.
        with _compat.forgetting_gradients():
            return graph(inputs)

    return run


def any_batch(function: Graph) -> Graph:
    """Return a function of a batch as a graph that is traced once for each shape of an item, whatever the batch's size.

    Args:
        function: From a tensor `(B, …)` to a tensor.

    Returns:
        A function of `(B, …)` tensors, any B.

    Example:
        >>> sizes = []
        >>> double = any_batch(lambda x: sizes.append(x.shape[0]) or 2 * x)
        >>> [double(tf.ones((count, 2))).shape[0] for count in (3, 1, 5)], sizes
        ([3, 1, 5], [None])
    """
    graph = tf.function(function)

    def run(inputs: Any) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        return graph.get_concrete_function(tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype))(inputs)

    return run

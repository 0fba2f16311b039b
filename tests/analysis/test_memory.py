"""How much memory a graph takes."""

import tensorflow as tf

from tf_detreg.analysis import memory


def test_peak_bytes_of_a_graph_by_hand():
    function = tf.function(lambda x: (2.0 * x + 1.0) * 3.0)
    graph = function.get_concrete_function(tf.TensorSpec((None, 4), tf.float32)).graph
    assert memory.peak_bytes(graph) == 2 * 16  # an operation's input and output; what came before is freed
    assert memory.peak_bytes(tf.function(lambda: tf.constant(1.0)).get_concrete_function().graph) == 4

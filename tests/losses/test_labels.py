"""Labels in a graph that was traced for several ranks."""

import numpy as np
import pytest
import tensorflow as tf

from tf_detreg.losses.labels import check_labels, check_multilabels, refuse_swapped

ANY = tf.TensorSpec(None, tf.int32)
ROWS = tf.TensorSpec((None, 4), tf.float32)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_one_label_a_row_in_any_rank_up_to_two(shape):
    check = tf.function(check_labels, input_signature=[ANY, ROWS])
    assert check(np.reshape([2, 0, 1], shape).astype(np.int32), np.zeros((3, 4), np.float32)).numpy().tolist() == [
        2,
        0,
        1,
    ]


@pytest.mark.parametrize("shape", [(3, 1, 1), (2,), (4,), (4, 1), (3, 2)])
def test_other_shapes_are_refused_when_the_graph_runs(shape):
    check = tf.function(check_labels, input_signature=[ANY, ROWS])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one class number for each embedding; received labels of"):
        check(np.zeros(shape, np.int32), np.zeros((3, 4), np.float32))


def test_columns_of_labels_in_any_rank():
    check = tf.function(check_multilabels, input_signature=[ANY, ROWS])
    found = check(np.array([[1, 0], [0, 0], [1, 1]], np.int32), np.zeros((3, 4), np.float32))
    assert found.numpy().tolist() == [[True, False], [False, False], [True, True]]
    for shape in ((3,), (3, 1, 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="number of labels"):
            check(np.zeros(shape, np.int32), np.zeros((3, 4), np.float32))


@pytest.mark.parametrize(
    ("labels", "embeddings", "swapped"),
    [
        (tf.zeros((3, 4)), tf.zeros(3), True),
        (tf.zeros((3, 4)), tf.zeros((3, 1)), True),
        (tf.zeros((3, 4)), tf.zeros((3, 4)), False),  # one-hot rows
        (tf.zeros((3, 1)), tf.zeros((3, 1)), False),
        (tf.zeros((3, 4), tf.int32), tf.zeros(3), False),
        (tf.zeros(3, tf.int32), tf.zeros(3), False),
        (tf.zeros(3), tf.zeros((3, 1)), False),
    ],
)
def test_embeddings_in_the_place_of_labels_are_told(labels, embeddings, swapped):
    if not swapped:
        refuse_swapped(labels, embeddings)
        return
    with pytest.raises(
        ValueError, match=r"`labels` must come first.*labels of shape \(3, 4\).*which seem to be swapped"
    ):
        refuse_swapped(labels, embeddings)

"""Which rows of a global batch a process takes."""

import pytest
import tensorflow as tf

from tf_detreg.training.distribution import _own_rows

BATCH = [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    ("pipelines", "replicas", "own"),
    [(2, 4, [[0, 1], [2, 3]]), (4, 4, [[0], [1], [2], [3]]), (1, 4, [[0, 1, 2, 3]])],
)
def test_ten_rows_are_dealt_to_four_replicas(pipelines, replicas, own):
    batches = tf.data.Dataset.from_tensor_slices(
        (tf.reshape(tf.range(20), (2, 10)), 10 * tf.reshape(tf.range(20), (2, 10)))
    )
    for pipeline, mine in enumerate(own):
        context = tf.distribute.InputContext(pipelines, pipeline, replicas)
        found = list(_own_rows(batches, context).take(3 * len(mine)).as_numpy_iterator())
        expected = [[row + batch for row in BATCH[replica]] for batch in (0, 10, 0) for replica in mine]
        assert [images.tolist() for images, _ in found] == expected
        assert all((labels == 10 * images).all() for images, labels in found)


def test_a_replica_without_a_row_gets_an_empty_batch():
    found = _own_rows(tf.data.Dataset.from_tensors((tf.range(1), tf.range(1))), tf.distribute.InputContext(1, 0, 2))
    assert [images.tolist() for images, _ in found.take(4).as_numpy_iterator()] == [[], [0]] * 2

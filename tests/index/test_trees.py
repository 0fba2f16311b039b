"""What a tree is tuned on."""

import numpy as np

from tf_detreg.index import trees


def test_a_sample_holds_live_items_alone():
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    removed = np.zeros(10, bool)
    removed[[0, 3]] = True

    class Base:
        count = 10

    base = Base()
    base.vectors, base.removed = vectors, removed
    rows, found = trees.sample(base, 5)
    assert len(rows) == 5 and (np.diff(rows) > 0).all() and not removed[rows].any()
    np.testing.assert_array_equal(found, vectors[rows])
    assert trees.sample(base)[0].tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
    base.removed = None
    assert trees.sample(base)[0].tolist() == list(range(10))

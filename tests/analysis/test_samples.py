"""Points that smoothness is measured at."""

import numpy as np
import pytest

from tf_detreg.analysis import samples


def test_two_classes_with_one_pair_are_enough_to_measure():
    rng = np.random.default_rng(0)
    points, labels = samples.take(np.eye(3), [0, 0, 1], rng, 8, "labels", False)
    assert points.shape == (3, 3) and sorted(labels) == [0, 0, 1]
    for wrong in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match="two classes or more, one of them with two samples"):
            samples.take(np.eye(3), wrong, rng, 8, "labels", False)

"""What retrieval takes as unit rows, and what it says of others."""

import numpy as np
import pytest

from tf_detreg.retrieval.inputs import unit_rows

ROWS = np.array([[1.0, 0.0], [0.6, 0.8]])


@pytest.mark.parametrize(
    ("vectors", "changed"),
    [
        (ROWS, False),
        (ROWS * (1 + 5e-6), False),
        (ROWS * [[1], [1 + 3e-5]], True),
        (ROWS * [[1 - 3e-5], [1]], True),
        (2 * ROWS, True),
        (np.array([[1, 0], [0, -1]]), False),
        (np.array([[1, 0], [0, 2]]), True),
        ((ROWS * 1.006).astype(np.float16), False),  # half precision cannot hold unit vectors more exactly
        ((ROWS * 1.02).astype(np.float16), True),
        ((ROWS * 0.98).astype(np.float16), True),
        (np.asfortranarray(ROWS, np.float32), False),
        ((ROWS * 1.006).astype(np.float32), True),
    ],
)
def test_only_other_lengths_count_as_changed(vectors, changed):
    rows, said = unit_rows(vectors, "queries")
    assert said is changed and rows.dtype == np.float32 and rows.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    exact = np.asarray(vectors, np.float64)
    np.testing.assert_allclose(rows, exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=1e-5)


def test_rows_of_length_one_are_not_copied():
    rows = ROWS.astype(np.float32)
    assert unit_rows(rows, "queries")[0] is rows


def test_rows_without_a_direction_are_counted_and_named():
    vectors = np.ones((9, 2))
    vectors[[1, 3, 4, 5, 6, 8]] = 0
    with pytest.raises(
        ValueError, match=r"^6 of 9 rows of `gallery` are all zeros.*\(rows 1, 3, 4, 5, 6, …\)\. Remove"
    ):
        unit_rows(vectors, "gallery")
    vectors = np.ones((9, 2))
    vectors[[0, 2, 4, 6, 8], 1] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    with pytest.raises(ValueError, match=r"^5 of 9 rows of `queries` hold NaN or infinity \(rows 0, 2, 4, 6, 8\)\."):
        unit_rows(vectors, "queries")

"""Each bad input has an error that names the argument and says what to do."""

import numpy as np
import pytest

from tf_detreg import retrieval

GOOD = np.random.default_rng(0).standard_normal((6, 3))
LABELS = [0, 0, 1, 1, 2, 2]


def spoiled(value):
    bad = GOOD.copy()
    bad[4] = value
    return bad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": spoiled(np.nan)}, r"1 of 6 rows of `queries` hold NaN or infinity \(rows 4\)"),
        ({"queries": spoiled(-np.inf)}, "NaN or infinity"),
        ({"queries": spoiled(0)}, r"all zeros.*\(rows 4\)"),
        ({"queries": GOOD[0]}, r"shape \(N, dim\)"),
        ({"queries": GOOD[:0], "labels": []}, "is empty"),
        ({"queries": GOOD.astype(str)}, "real numbers"),
        ({"queries": GOOD[:1], "labels": [0], "k": 1}, "there is nothing to find"),
        ({"labels": LABELS[:5]}, "one value for each of the 6 `queries`"),
        ({"labels": np.full(6, np.nan)}, "`labels` holds NaN"),
        ({"labels": ["a", None, "a", "b", "b", None]}, "`labels` holds values that cannot be compared.*NoneType, str"),
        ({"labels": [None] * 6}, "`labels` holds values that cannot be compared.*NoneType"),
        ({"groups": [1]}, "`groups` must hold one value"),
        ({"k": 6}, "a query can find 5 items"),
        ({"k": ()}, "positive integers"),
        ({"k": (0, 1)}, "positive integers"),
        ({"k": 1.5}, "positive integers"),
        ({"gallery": GOOD}, "Give both `gallery` and `gallery_labels`"),
        ({"gallery": GOOD[:0], "gallery_labels": []}, "`gallery` must hold at least one"),
        ({"gallery": spoiled(np.nan), "gallery_labels": LABELS}, "rows of `gallery`"),
        ({"gallery": GOOD[:, :2], "gallery_labels": LABELS}, "3 dimensions and `gallery` has 2"),
        ({"gallery": GOOD, "gallery_labels": LABELS[:2]}, "`gallery_labels` must hold one value"),
        ({"gallery": GOOD, "gallery_labels": list("aabbcc")}, "no two of them can be equal"),
        (
            {"gallery": GOOD, "gallery_labels": np.array(LABELS, np.uint64), "labels": np.array(LABELS, np.int64)},
            "have no integer type in common",
        ),
        (
            {"gallery": GOOD, "gallery_labels": LABELS, "groups": LABELS, "gallery_groups": list("aabbcc")},
            "`groups` are int64 and `gallery_groups` are <U1: no two",
        ),
        ({"gallery": GOOD, "gallery_labels": [7] * 6, "k": 1}, "No query has a relevant item"),
        ({"labels": range(6), "k": 1}, "No query has a relevant item"),
        ({"gallery_groups": LABELS}, "`gallery_groups` came without `gallery`"),
        ({"protocol": "cross-group"}, "needs `groups`"),
        ({"protocol": "query-gallery"}, "needs `gallery`"),
        ({"protocol": "leave-two-out"}, "must be 'auto' or one of"),
        ({"gallery": GOOD, "gallery_labels": LABELS, "protocol": "leave-one-out"}, "leave `gallery` out"),
        ({"engine": "faiss"}, "`engine` must be one of"),
        ({"target_recall": 1.5}, "`target_recall`"),
        ({"metrics": "map"}, "`metrics` must be"),
        ({"labels": [0] * 6, "clusters": True}, "at least two classes"),
        ({"queries": [[1, 2], [3]], "labels": [0, 0]}, "rows that differ"),
        ({"queries": LABELS, "labels": GOOD}, "swapped"),
        ({"labels": [[0], [0, 1], [1], [1], [2], [2]]}, "`labels` must hold one value .* received lists"),
        ({"groups": [[0], [0, 1], [1], [1], [2], [2]]}, "`groups` must hold one value .* received lists"),
        ({"labels": np.eye(3)[LABELS]}, "argmax"),
        ({"target_recall": "0.9"}, r"`target_recall` must be a number in \(0, 1\]; received '0.9'"),
        ({"target_recall": None}, "`target_recall`"),
        ({"clusters": "no"}, "`clusters` must be True or False"),
        ({"resamples": True}, "`resamples`"),
        ({"resamples": -1}, "`resamples` must be a whole number, 0 or more; received -1"),
        ({"resamples": 1.5}, "`resamples`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_evaluate_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        retrieval.evaluate(**{"queries": GOOD, "labels": LABELS, "k": (1, 2)} | arguments)


def test_unnormalized_input_is_normalized_and_noted():
    lengths = np.array([1, 10, 0.1, 1, 1e-20, 1e20])[:, None]
    once, scaled = retrieval.evaluate(GOOD, LABELS, k=1), retrieval.evaluate(GOOD * lengths, LABELS, k=1)
    assert once.metrics == pytest.approx(scaled.metrics)
    assert any("normalized" in note for note in scaled.notes)
    unit = (GOOD / np.linalg.norm(GOOD, axis=1, keepdims=True)).astype(np.float32)
    assert not retrieval.evaluate(unit, LABELS, k=1).notes


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_other_dtypes_and_tensors_are_accepted(dtype):
    import tensorflow as tf

    points = np.round(GOOD * 10).astype(dtype)
    plain = retrieval.evaluate(points, LABELS, k=1)
    tensors = retrieval.evaluate(tf.constant(points), tf.constant(LABELS)[:, None], k=1)
    assert plain.metrics == tensors.metrics


def test_search_refuses():
    with pytest.raises(ValueError, match="a query can find 5 items"):
        retrieval.search(GOOD, k=6)
    with pytest.raises(ValueError, match="all zeros"):
        retrieval.search(GOOD, spoiled(0), k=1)
    with pytest.raises(ValueError, match="dimensions"):
        retrieval.search(GOOD, GOOD[:, :2], k=1)

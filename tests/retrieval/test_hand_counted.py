"""Cases small enough to count by hand."""

import numpy as np
import pytest

from tf_detreg import retrieval


def circle(*degrees):
    """Points on the unit circle; the nearer the angle, the nearer the neighbor."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


# Class a at 0°, 10°, 40°; class b at 25°, 90°.
POINTS, LABELS = circle(0, 10, 40, 25, 90), ["a", "a", "a", "b", "b"]
# Neighbors, nearest first (angles away):
#   0°:  10 a, 25 b, 40 a, 90 b      right at ranks 1, 3
#   10°: 0 a, 25 b, 40 a, 90 b       1, 3
#   40°: 25 b, 10 a, 0 a, 90 b       2, 3
#   25°: 10 a / 40 a (both 15°), 0 a, 90 b    4
#   90°: 40 a, 25 b, …               2


def test_leave_one_out():
    report = retrieval.evaluate(POINTS, LABELS, k=(1, 2, 3, 4))
    assert report.recall == pytest.approx({1: 2 / 5, 2: 4 / 5, 3: 4 / 5, 4: 1})
    assert report.precision == pytest.approx({1: 2 / 5, 2: (1 + 1 + 1 + 0 + 1) / 10, 3: 7 / 15, 4: 8 / 20})
    assert report.metrics["mrr"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 4 + 1 / 2) / 5)
    assert report.metrics["r_precision"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2 + 0 + 0) / 5)
    assert report.map_at_r == pytest.approx((1 / 2 + 1 / 2 + 1 / 4 + 0 + 0) / 5)
    assert report.metrics["map"] == pytest.approx((5 / 6 + 5 / 6 + (1 / 2 + 2 / 3) / 2 + 1 / 4 + 1 / 2) / 5)
    assert (report.queries, report.gallery, report.queries_without_positives, report.classes) == (5, 5, 0, 2)
    assert report.protocol == "leave-one-out"
    assert report.per_class["b"]["mrr"] == pytest.approx(3 / 8)
    assert report.per_class["b"]["queries"] == 2


def test_recall_alone_needs_one_rank_and_agrees():
    every, some = (retrieval.evaluate(POINTS, LABELS, k=(1, 2), metrics=what) for what in ("all", "recall"))
    assert some.recall == every.recall
    assert some.metrics["mrr"] == every.metrics["mrr"]
    assert np.isnan(some.map_at_r)


def test_query_gallery_does_not_leave_equal_vectors_out():
    report = retrieval.evaluate(circle(0, 90), [0, 1], circle(0, 80, 45), [0, 1, 0], k=1)
    assert report.recall[1] == 1
    assert report.protocol == "query-gallery"
    assert report.metrics["r_precision"] == 1


def test_cross_group_removes_the_same_class_and_group_and_nothing_else():
    # Query 0° (class 0, camera 0) would find 1° of its own camera; that leaves, and 20° of camera 1 stands behind the
    # wrong answer at 10° of the query's own camera, which stays.
    points, labels, cameras = circle(0, 1, 20, 10, 60), [0, 0, 0, 1, 1], [0, 0, 1, 0, 1]
    report = retrieval.evaluate(points, labels, groups=cameras, k=(1, 2))
    # 0°: 10° wrong, 20° right -> 2.  1°: same -> 2.  20°: 10° wrong, 1° right (2), 0° right (3).
    # 10°: 1°, 0°, 20° wrong (9, 10, 10 away), 60° right -> 4.  60°: 20° wrong, 10° right -> 2.
    assert report.protocol == "cross-group"
    assert report.recall == {1: 0.0, 2: pytest.approx(4 / 5)}
    assert report.metrics["map"] == pytest.approx((1 / 2 + 1 / 2 + (1 / 2 + 2 / 3) / 2 + 1 / 4 + 1 / 2) / 5)
    assert report.per_group[0]["queries"] == 3
    assert report.per_group[1]["recall@2"] == 1.0


def test_groups_can_break_down_without_changing_the_protocol():
    report = retrieval.evaluate(POINTS, LABELS, groups=[0, 0, 1, 1, 1], protocol="leave-one-out", k=1)
    assert report.recall[1] == pytest.approx(2 / 5)
    assert report.per_group[0]["recall@1"] == 1
    assert report.per_group[1]["recall@1"] == 0


def test_queries_without_positives_are_left_out_and_counted():
    report = retrieval.evaluate(circle(0, 10, 30), [0, 0, 1], k=1)
    assert report.queries_without_positives == 1
    assert report.recall[1] == 1.0
    assert np.isnan(report.per_class[1]["recall@1"])
    assert report.to_dict()["per_class"]["1"]["recall@1"] is None


def test_a_collapsed_model_scores_zero_because_ties_lose():
    report = retrieval.evaluate(np.ones((40, 7)), np.arange(40) // 4, k=(1, 36, 37))
    assert report.recall == {1: 0.0, 36: 0.0, 37: 1.0}  # 36 wrong answers stand before the first right one
    assert report.map_at_r == 0.0


def separated(cosine: float) -> tuple[np.ndarray, np.ndarray]:
    """20 classes of 5, all pairs of classes at this cosine, and each class far closer together."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    spread = np.sqrt(1 / cosine - 1)
    points = np.eye(20)[labels] * spread + 0.05 * spread / 5 * rng.standard_normal((100, 20))
    return np.concatenate([points, np.ones((100, 1))], axis=1), labels


@pytest.mark.parametrize("cosine", [0.5, 0.999, 0.9999991, 0.999999999])
@pytest.mark.parametrize("what", ["all", "recall"])
def test_separated_classes_score_one_however_close_together_all_vectors_lie(cosine, what):
    points, labels = separated(cosine)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    between = (unit @ unit.T)[labels[:, None] != labels]
    assert between.mean() == pytest.approx(cosine, rel=0.02 * (1 - cosine))
    report = retrieval.evaluate(points, labels, k=(1, 4), metrics=what)
    assert all(value == 1.0 for name, value in report.metrics.items() if name not in ("precision@1", "precision@4"))
    assert not any("Ties" in note for note in report.notes)


def test_a_note_says_which_numbers_ties_decide():
    # Both items at 10° tie for the first query; the other queries have none that ties with a relevant one.
    report = retrieval.evaluate(circle(0, 50), [0, 2], circle(10, 10, 52, 80), [0, 1, 2, 2], k=(1, 2))
    assert report.recall == {1: 0.5, 2: 1.0}
    (note,) = [note for note in report.notes if "Ties decide" in note]
    assert "numbers of 1 queries" in note and "recall@1 is 50.00 % and would be 100.00 %" in note
    assert "recall@2" not in note


def test_ties_are_of_distances_and_not_of_cosines():
    # Angles are distances here: 2e-7 apart ties, 5e-6 apart does not, far away and close by.
    for angle in (1e-3, 0.1, 1.0):
        for gap, hit in ((2e-7, 0.0), (5e-6, 1.0)):
            there = circle(*np.rad2deg([angle, -angle - gap]))
            assert retrieval.evaluate(circle(0), [0], there, [0, 1], k=1).recall[1] == hit, (angle, gap)


def test_duplicates_are_found_and_a_wrong_copy_stands_first():
    # The query's copy in its own class is a right answer; a copy in another class ties with it and wins.
    report = retrieval.evaluate(circle(0), [0], circle(0, 0, 50), [0, 1, 1], k=(1, 2))
    assert report.recall == {1: 0.0, 2: 1.0}
    report = retrieval.evaluate(circle(0), [0], circle(0, 50, 60), [0, 1, 1], k=1)
    assert report.recall == {1: 1.0}


def test_search_orders_by_score_then_by_index():
    ids, scores = retrieval.search(circle(0), circle(30, 0, -30, 10, 0), k=5)
    assert ids.tolist() == [[1, 4, 3, 0, 2]]
    np.testing.assert_allclose(scores[0], np.cos(np.deg2rad([0, 0, 10, 30, 30])), atol=1e-6)


def test_search_among_themselves_leaves_self_out_by_index():
    ids, _ = retrieval.search(circle(0, 0, 90), k=1)
    assert ids.ravel().tolist()[:2] == [1, 0]


def test_the_nearest_items_without_the_query_itself_and_without_what_is_left_out():
    from tf_detreg.retrieval import exact

    rows = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]
    ids, scores = exact.search(rows, rows, 2, own=np.arange(4))
    assert ids[:3].tolist() == [[1, 2], [0, 2], [0, 1]] and (ids[3] != 3).all()
    np.testing.assert_array_equal(scores, [[1, 1], [1, 1], [1, 1], [0, 0]])
    ids, scores = exact.search(rows, rows, 2, left_out=np.array([True, False, False, False]))
    assert ids[:3].tolist() == [[1, 2]] * 3 and ids[3, 0] == 3 and not (ids == 0).any()


def test_a_density_by_hand():
    from tf_detreg.retrieval.density import FlowDensity

    rng = np.random.default_rng(0)
    outputs, determinants = rng.normal(1.0, 2.0, (30, 3)), rng.normal(size=30)
    found = FlowDensity(outputs, determinants)(np.arange(20))
    mean, deviation = outputs[:20].mean(axis=0), outputs[:20].std(axis=0)
    density = np.exp(-((outputs - mean) ** 2) / (2 * deviation**2)) / np.sqrt(2 * np.pi) / deviation
    np.testing.assert_allclose(found, np.log(density).sum(axis=1) + determinants, rtol=1e-9)


def test_weights_of_drawn_classes_have_mean_one():
    from tf_detreg.retrieval.calibration import draws

    drawn = draws(10, 5, 2000, 0)
    assert drawn.shape == (2000, 10) and set(np.unique(drawn * 5 / 10)) <= set(range(6))
    np.testing.assert_allclose(drawn.sum(axis=1), 10.0)
    np.testing.assert_allclose(drawn.mean(axis=0), 1.0, atol=0.12)

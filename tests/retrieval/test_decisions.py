"""Open sets, calibration and decisions, on counted cases and data whose rates are known."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import heads, retrieval
from tf_detreg.index import Index
from tf_detreg.retrieval import deciding, trials
from tf_detreg.retrieval.calibration import _probabilities, lowest_threshold, shares


def classes_of(count, images=12, dim=16, noise=0.9, seed=0):
    """Classes around random directions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), images)
    return rng.standard_normal((count, dim))[labels] + noise * rng.standard_normal((len(labels), dim)), labels


def test_scores_of_a_query_by_hand():
    cosines = np.array([[0.9, 0.8, 0.5, 0.4], [0.7, 0.7, 0.6, 0.6]])
    labels = np.array([["a", "a", "b", "c"], ["a", "a", "a", "a"]])
    hubs = np.array([[0.5, 0.1, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0]])
    found = trials.query_scores(cosines, labels, trials.SCORES, 2, hubs)
    np.testing.assert_allclose(found["nearest"], [0.9, 0.7])
    np.testing.assert_allclose(found["margin"], [0.9 - 0.5, 0.7 - 0.6])
    np.testing.assert_allclose(found["mean"], [0.85, 0.7])
    np.testing.assert_allclose(found["normalized"], [0.7, 0.7])


def test_every_image_is_an_unknown_and_a_known_query_once():
    points, classes = classes_of(11, images=4)
    unit = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    done = trials.run(unit, classes, ("nearest", "margin"), folds=3)
    product = unit @ unit.T
    other = np.where(classes[:, None] != classes, product, -2)
    np.fill_diagonal(product, -2)
    assert done.gallery_classes in (7, 8) and done.gallery == 4 * 11 * 2 // 3
    # A gallery without a fold: no score is above that over all items, and most are equal.
    assert (done.unknown["nearest"] <= other.max(axis=1) + 1e-6).all()
    assert (done.known["nearest"] <= product.max(axis=1) + 1e-6).all()
    assert np.isclose(done.known["nearest"], product.max(axis=1), atol=1e-6).mean() > 0.6
    assert (done.unknown["nearest"] < 0.9999).all() and (done.known["nearest"] < 0.9999).all()


def test_open_set_rates_by_counting():
    points, classes = classes_of(20)
    report = retrieval.open_set(points, classes, fpirs=(0.1,), resamples=50)
    unit = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    done = trials.run(unit, classes, ("nearest", "margin"))
    for name in ("nearest", "margin"):
        known, unknown = done.known[name], done.unknown[name]
        wins = (known[:, None] > unknown).mean() + 0.5 * (known[:, None] == unknown).mean()
        assert report.auroc[name] == pytest.approx(wins)
        rejected = np.sort(unknown)[::-1][int(0.1 * len(unknown))]  # the best that must not be accepted
        assert report.dir[name][0.1] == pytest.approx((done.right & (known > rejected)).mean())
        low, high = report.intervals[name, "auroc"]
        assert low < report.auroc[name] < high
    assert set(report.auroc) == {"nearest", "margin", "mean", "normalized"}
    assert report.auroc["nearest"] > 0.8 and report.identified > 0.8
    assert "| nearest |" in report.to_markdown() and json.loads(report.to_json())["auroc"]["nearest"] > 0.8
    assert "Nothing is stated at FPIR" in retrieval.open_set(points, classes, resamples=0).notes[0]


def test_images_that_are_alone_in_their_class_are_unknown_queries_only():
    points, classes = classes_of(20, images=6)
    classes = np.concatenate([classes, [20, 21]])
    points = np.concatenate([points, points[:2] + 1.0])
    report = retrieval.open_set(points, classes, scores=("nearest",), fpirs=(0.1,), resamples=0)
    assert report.queries == (120, 122) and "2 images are the only ones" in report.notes[0]


def test_density_of_a_flow_head_is_that_of_tfp():
    from tensorflow_probability import bijectors as tfb
    from tensorflow_probability import distributions as tfd

    tf.keras.utils.set_random_seed(0)
    head = heads.RealNVP(4)
    features = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    head(features)
    head.set_weights([w + 0.1 * np.random.default_rng(1).standard_normal(w.shape) for w in head.get_weights()])
    density = retrieval.FlowDensity.of_head(head, features, batch_size=7)
    gallery = np.arange(20)
    z = head.project(features)
    y = head.bijector().forward(z).numpy()
    base = tfd.MultivariateNormalDiag(y[:20].mean(axis=0), y[:20].std(axis=0))
    expected = tfd.TransformedDistribution(base, tfb.Invert(head.bijector())).log_prob(tf.identity(z))
    np.testing.assert_allclose(density(gallery), expected, rtol=1e-4, atol=1e-4)
    report = retrieval.open_set(
        np.asarray(head(features)), np.arange(30) % 5, fpirs=(0.5,), density=density, resamples=0
    )
    assert "density" in report.auroc
    linear = heads.Linear(4)
    linear(features)


@pytest.mark.parametrize("bound", ["point", "upper"])
def test_a_threshold_keeps_its_target_on_the_classes_it_was_fitted_on(bound):
    points, classes = classes_of(60)
    decision = retrieval.calibrate(points, classes, target=0.05, bound=bound, resamples=200)
    assert decision.fitted.false_accepts <= 0.05
    if bound == "point":
        assert decision.fitted.false_accepts > 0.045
        tighter = retrieval.calibrate(points, classes, target=0.05, resamples=200)
        assert tighter.threshold > decision.threshold
    low, high = decision.interval
    assert low <= decision.fitted.false_accepts <= high
    assert decision.class_names[:3] == ("0", "1", "2") and decision.fitted.classes == 60


def test_the_lowest_threshold_by_hand():
    scores = np.array([0.9, 0.8, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0])
    done = trials.Trials({"nearest": np.full(10, 0.95)}, np.ones(10, bool), {"nearest": scores}, np.arange(10) // 2,
                         np.ones(10, bool), 8, 4, np.roll(np.arange(10) // 2, 4))  # fmt: skip
    once = np.ones((1, 5))
    assert lowest_threshold(done, "nearest", 0.3, once, 0.95) == 0.8
    assert lowest_threshold(done, "nearest", 0.29, once, 0.95) == 0.9  # both items at 0.8, or none
    assert 0.9 < lowest_threshold(done, "nearest", 0.05, once, 0.95) < 0.9001
    # The first class drawn twice and the last not at all: 0.9 and one 0.8 count double as queries of the first class,
    # and 0.4 and 0.3 double as taken for it; 3 of 10 is passed at 0.8. Both are taken for the fourth class.
    assert done.confused[:3].tolist() == [3, 3, 4]
    assert lowest_threshold(done, "nearest", 0.3, np.array([[2, 1, 1, 1, 0]]), 0.95) == 0.9
    twice = np.array([[1, 1, 1, 2, 0]])  # of 10 queries 0.9 and 0.8 count double, the other 0.8 not at all
    assert lowest_threshold(done, "nearest", 0.2, twice, 0.95) == 0.9
    assert shares(done, scores >= 0.8, twice) == pytest.approx([4 / 10])


@pytest.mark.slow
def test_the_upper_bound_keeps_its_promise_and_the_point_estimate_does_not():
    kept = {"upper": 0, "point": 0}
    for seed in range(20):
        points, classes = classes_of(120, images=10, seed=seed)
        for bound in kept:
            half = classes < 60
            decision = retrieval.calibrate(
                points[half], classes[half], target=0.05, bound=bound, resamples=200,
                test=(points[~half], classes[~half]),
            )  # fmt: skip
            kept[bound] += decision.test.false_accepts <= 0.05
    assert kept["upper"] >= 18 and kept["point"] <= 15


@pytest.mark.parametrize("method", ["isotonic", "logistic"])
def test_probabilities_rise_with_the_score_and_are_calibrated(method):
    points, classes = classes_of(300, images=6)
    half = classes < 150
    decision = retrieval.calibrate(
        points[half], classes[half], target=0.05, method=method, resamples=50, test=(points[~half], classes[~half])
    )
    grid = decision.probability(np.linspace(-1, 1, 50))
    assert (np.diff(grid) >= 0).all() and 0 <= grid[0] < 0.2 and 0.8 < grid[-1] <= 1
    assert decision.test.calibration_error < 0.08
    assert sum(weight for _, _, weight in decision.test.reliability) == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_few_classes_promise_nothing_that_they_do_not_keep(count):
    """Half of two classes is one, without a second that it could be taken for: every threshold kept the target."""
    points, classes = classes_of(count, images=240 // count, seed=2)
    point = retrieval.calibrate(points, classes, target=0.1, bound="point", resamples=100)
    assert point.fitted.false_accepts <= 0.1 and max(point.interval) > 0
    if count < 4:
        with pytest.raises(ValueError, match=rf"`labels` must hold 4 classes or more .* received {count}\. `bound`"):
            retrieval.calibrate(points, classes, target=0.1)
        return
    upper = retrieval.calibrate(points, classes, target=0.1, confidence=0.05, resamples=100)
    assert upper.fitted.false_accepts <= 0.1 and upper.threshold >= point.threshold


def test_a_share_of_false_accepts_is_at_most_all():
    decision = retrieval.calibrate(*classes_of(20), target=1.0, resamples=200)
    assert decision.interval[1] == 1


def test_the_share_of_unknown_queries_moves_the_probabilities():
    points, classes = classes_of(40)
    few, many = (
        retrieval.calibrate(points, classes, target=0.05, unknown_share=share, resamples=20) for share in (0.1, 0.9)
    )
    middle = np.median(few.scores)
    assert few.probability(middle) > many.probability(middle) + 0.1
    assert few.threshold == many.threshold


def test_a_decision_survives_json(tmp_path):
    points, classes = classes_of(40)
    decision = retrieval.calibrate(
        points, classes, target=0.05, fingerprint="abc", resamples=20, test=classes_of(30, seed=1)
    )
    path = decision.save(tmp_path / "decision.json")
    assert retrieval.Decision.load(path) == decision
    decision.refuse_other_model("abc"), decision.refuse_other_model(None)
    with pytest.raises(ValueError, match="another model"):
        decision.refuse_other_model("xyz")
    assert "at most 5 %" in decision.summary() and "On other classes: 30 classes" in decision.to_markdown()
    assert decision.plot_reliability(tmp_path / "r.png").axes
    content = json.loads(path.read_text())
    for change in (
        *({"format": 9}, {"scores": []}, {"scores": [1, 0]}, {"threshold": None}, {"fitted": 3}, {"more": 1}),
        *({"threshold": True}, {"target": 7}, {"probabilities": [5.0] * len(decision.scores)}, {"score": 3}),
        {"fingerprint": 5},
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match="no decision that tf_detreg wrote"):
            retrieval.Decision.load(path)
    with pytest.raises(FileNotFoundError, match="tf-detreg calibrate"):
        retrieval.Decision.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.001}, r"at least 10,000 images .* there are 240, from which 0\.042 or more"),
        ({"target": 0}, "`target` must be a number in"),
        ({"labels": np.zeros(240, int)}, "`labels` holds one class"),
        ({"labels": np.arange(240)}, "No query finds its class"),
        ({"embeddings": np.full((240, 16), np.nan)}, "NaN or infinity"),
        ({"embeddings": np.ones((240, 16))}, "No query finds its class|No threshold reaches"),
        ({"score": "best"}, "`score` must be one of"),
        ({"score": "density"}, "needs `density`"),
        ({"bound": "lower"}, "`bound` must be one of"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"test": np.ones((3, 16))}, r"`test` must be \(embeddings, labels\); received ndarray"),
        (
            {"test": (np.ones((3, 4)), [0, 0, 1])},
            r"`test` must hold vectors of 16 dimensions, .* received shape \(3, 4\)",
        ),
        ({"method": "linear"}, "`method` must be one of"),
        ({"unknown_share": 1}, "`unknown_share`"),
        ({"confidence": 2}, "`confidence`"),
    ],
)
def test_bad_input(arguments, message):
    points, classes = classes_of(20)
    with pytest.raises(ValueError, match=message):
        retrieval.calibrate(**{"embeddings": points, "labels": classes, "target": 0.05, "resamples": 20} | arguments)


def test_equal_images_under_two_labels_leave_no_threshold():
    points, classes = classes_of(20, images=6)
    both = np.concatenate([points, points]), np.concatenate([classes, classes + 20])
    with pytest.raises(ValueError, match=r"No threshold reaches `target`=0\.1: .* equal images"):
        retrieval.calibrate(*both, target=0.1, resamples=20)


def test_few_classes_are_noted():
    points, classes = classes_of(10, images=30)
    assert "10 classes are few" in retrieval.calibrate(points, classes, target=0.05, resamples=20).notes[0]


def test_without_wrong_records_the_probability_is_constant():
    done = trials.Trials({"nearest": np.linspace(0.5, 1, 20)}, np.ones(20, bool), {"nearest": np.zeros(20)},
                         np.arange(20) // 2, np.ones(20, bool), 8, 4, np.zeros(20, int))  # fmt: skip
    _, probabilities = _probabilities(done, "nearest", 0.0, "auto")
    assert (probabilities == 1).all()


def test_matches_are_decided_and_vote():
    points, classes = classes_of(80, noise=0.5)
    half = classes < 40
    decision = retrieval.calibrate(points[~half], classes[~half], target=0.05, resamples=100)
    index = Index(points[half], metadata=[{"label": int(c)} for c in classes[half]])
    unknown, known = (deciding.decided(index.search(points[part], 5), decision, 3) for part in (~half, half))
    np.testing.assert_array_equal(unknown.accepted, unknown.scores >= decision.threshold)
    np.testing.assert_allclose(unknown.probabilities, decision.probability(unknown.scores))
    assert unknown.scores.shape == (480, 3) and unknown.accepted[:, 0].mean() <= 0.05
    row = next(known.rows())
    assert row["accepted"] is True and 0.9 < row["probability"] <= 1
    voted = deciding.vote(known, "label")
    right = np.array([label == c for label, c in zip(voted.labels, classes[half], strict=True)])
    assert right.mean() > 0.9 and (voted.probabilities[right] > 0.5).all()
    assert np.mean([label is None for label in deciding.vote(unknown, "label").labels]) >= 0.95
    plain = deciding.vote(index.search(points[:1], 4), "label")
    assert plain.labels == [0] and plain.probabilities[0] == plain.votes[0] == 1.0
    with pytest.raises(ValueError, match="no 'kind' in its metadata"):
        deciding.vote(known, "kind")


@pytest.mark.parametrize("score", ["margin", "mean"])
def test_scores_of_a_whole_query_decide_on_all_its_matches(score):
    points, classes = classes_of(60, noise=0.5)
    half = classes < 30
    decision = retrieval.calibrate(points[~half], classes[~half], target=0.05, score=score, resamples=20)
    index = Index(points[half], metadata=[{"label": int(c)} for c in classes[half]])
    found = deciding.decided(index.search(points[~half], deciding.depth(decision, 3, len(index))), decision, 3)
    assert (found.accepted == found.accepted[:, :1]).all() and found.accepted.mean() <= 0.1
    normalized = retrieval.calibrate(points, classes, target=0.05, score="normalized", resamples=20)
    with pytest.raises(ValueError, match="an index cannot compute"):
        deciding.depth(normalized, 3, 100)


def test_a_vote_by_hand():
    index = Index([[1, 0], [1, 0.2], [1, 0.3], [0, 1]], metadata=[{"label": name} for name in ("a", "b", "b", "c")])
    assert deciding.vote(index.search([1, 0.0], 3), "label").labels == ["b"]
    assert deciding.vote(index.search([1, 0.0], 2), "label").labels == ["a"]  # one vote each: the nearest
    np.testing.assert_allclose(deciding.vote(index.search([1, 0.0], 3), "label").votes, [2 / 3])

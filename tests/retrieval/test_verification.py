"""Verification against scikit-learn's curve and counted cases."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
from sklearn import metrics

from tf_detreg import retrieval
from tf_detreg.retrieval import curves, pairs
from tf_detreg.retrieval.verification import _accuracy


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 8)
    points = rng.standard_normal((40, 16))[labels] + 1.2 * rng.standard_normal((320, 16))
    return points / np.linalg.norm(points, axis=1, keepdims=True), labels


def all_pairs(points, labels):
    one, other = np.triu_indices(len(points), 1)
    return (points @ points.T)[one, other], labels[one] == labels[other]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_equals_scikit_learns(weighted, ties):
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1, 1, 300), rng.normal(0, 1, 500)
    if ties:
        genuine, impostor = genuine.round(1), impostor.round(1)
    weights = (rng.random(300), rng.random(500)) if weighted else (None, None)
    curve = curves.roc(genuine, impostor, *weights)
    truth, scores = np.r_[np.ones(300), np.zeros(500)], np.r_[genuine, impostor]
    sample = np.concatenate(weights) if weighted else None
    far, tar, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False, sample_weight=sample)
    np.testing.assert_allclose(curve.far, far)
    np.testing.assert_allclose(curve.tar, tar)
    np.testing.assert_allclose(curve.thresholds[1:], thresholds[1:])
    assert curve.auc == pytest.approx(metrics.roc_auc_score(truth, scores, sample_weight=sample))


def test_counted_rates():
    curve = curves.roc(np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.8, 0.5, 0.3, 0.1]))
    # Of 16 comparisons 0.9 wins 4, 0.8 wins 3 and ties once, 0.7 wins 3, 0.2 wins 1.
    assert curve.auc == pytest.approx((4 + 3.5 + 3 + 1) / 16)
    assert curve.at_far(0.0) == (0.9, 0.25)
    assert curve.at_far(0.25) == (0.7, 0.75)  # the tie at 0.8 is accepted on both sides
    assert curve.at_far(0.24) == (0.9, 0.25)
    assert curve.eer == pytest.approx(0.25)  # from 0.7 on: one of four impostors, and one of four genuine rejected
    assert curves.roc(np.array([1.0, 0.9]), np.array([0.1])).eer == 0.0
    assert curves.roc(np.array([0.0]), np.array([1.0])).eer == 1.0
    assert curves.roc(np.array([0.5]), np.array([0.5])).auc == 0.5


def test_all_pairs_of_a_small_set_are_compared(clustered):
    scores, same = all_pairs(*clustered)
    report = retrieval.verification(*clustered, resamples=50)
    assert (report.genuine, report.impostor) == report.of == (same.sum(), (~same).sum())
    assert report.auc == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-5)
    far, tar, _ = metrics.roc_curve(same, scores)
    for rate in report.rates.values():
        assert rate.tar == pytest.approx(tar[far <= rate.far].max(), abs=2e-3)
        assert rate.interval[0] <= rate.tar <= rate.interval[1]
    assert set(report.rates) == {1e-1, 1e-2, 1e-3}  # 49,920 pairs: ten false accepts at 1e-3, not at 1e-4
    assert "No rate is stated at FAR 0.0001, 1e-05, 1e-06" in report.notes[0]
    assert report.intervals["auc"][0] < report.auc < report.intervals["auc"][1]


def test_a_sample_estimates_what_all_pairs_give(clustered):
    whole, sampled = (retrieval.verification(*clustered, max_pairs=n, resamples=0) for n in (10**6, 900))
    assert sampled.impostor == 900 and 870 < sampled.genuine < 920 and sampled.of == whole.of
    assert sampled.auc == pytest.approx(whole.auc, abs=0.02)
    labels = clustered[1]
    drawn = pairs.draw(labels, None, 900)
    assert (labels[drawn.first] == labels[drawn.second]).tolist() == drawn.same.tolist()
    assert (drawn.first != drawn.second).all()
    assert len(np.unique(labels[drawn.first[drawn.same]])) == 40  # every class is in the sample
    ends = np.bincount(labels[np.r_[drawn.first[~drawn.same], drawn.second[~drawn.same]]])
    assert ends.min() > 20 and drawn.weights[~drawn.same].sum() == pytest.approx(whole.of[1])


def test_a_large_class_is_sampled_over_all_its_pairs():
    classes = np.zeros(3000, np.int64)
    classes[-2:] = 1
    drawn = pairs.draw(classes, None, 2000)
    genuine = drawn.first[drawn.same], drawn.second[drawn.same]
    assert (genuine[0] != genuine[1]).all() and max(map(np.max, genuine)) > 2900
    assert drawn.weights[drawn.same].sum() == pytest.approx(2998 * 2997 / 2 + 1)


def test_memory_is_bounded_at_many_items():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200_000, 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = rng.integers(0, 20_000, 200_000)
    tracemalloc.start()
    report = retrieval.verification(points, labels, max_pairs=100_000, resamples=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.of[1] > 1.9e10 and report.impostor == 100_000
    assert peak < 150e6
    assert report.auc == pytest.approx(0.5, abs=0.02)


def test_groups_leave_pairs_of_one_class_and_group_out():
    points = np.eye(2)[[0, 0, 0, 1, 1]] + 0.1 * np.random.default_rng(0).random((5, 2))
    report = retrieval.verification(points, [0, 0, 0, 1, 1], groups=["a", "a", "b", "a", "b"], resamples=0)
    assert (report.genuine, report.impostor) == (3, 6)


def test_intervals_draw_classes():
    # Half of the classes are perfect and half are noise, 50 images each: the error is that of 12 coins.
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 50)
    points = np.where((labels % 2 == 0)[:, None], 5 * np.eye(12)[labels], rng.standard_normal((600, 12)))
    low, high = retrieval.verification(points + 0.1, labels, resamples=100).rates[0.01].interval
    assert high - low > 0.25


def test_lfws_list_with_folds(tmp_path):
    names = [f"lfw/{name}/{name}_{n:04d}.jpg" for name in ("Ann Ek", "Bo") for n in (1, 2, 3)]
    lines = ["2\t2"]
    for _ in range(2):
        lines += ["Ann Ek\t1\t2", "Bo\t1\t3", "Ann Ek\t1\tBo\t1", "Bo\t2\tAnn Ek\t3"]
    file = tmp_path / "pairs.txt"
    file.write_text("\n".join(lines) + "\n")
    listed = retrieval.read_pairs(file, names)
    assert listed.first[:4].tolist() == [0, 3, 0, 4] and listed.second[:4].tolist() == [1, 5, 3, 2]
    assert listed.same.tolist() == [True, True, False, False] * 2 and listed.folds.tolist() == [0] * 4 + [1] * 4
    report = retrieval.verification(np.eye(2)[[0, 0, 0, 1, 1, 1]], pairs=listed, fars=[1], resamples=5)
    assert report.accuracy == (1.0, 0.0) and report.auc == 1.0
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as some editors begin a file
    assert retrieval.read_pairs(file, names).first.tolist() == listed.first.tolist()
    file.write_bytes(b"1\t1\nBj\xf6rn\t1\t2\n")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        retrieval.read_pairs(file, names)
    broken = {
        "announces": "2\t3\n" + "\n".join(lines[1:]),
        "line 1": "x",
        "Bo_0009": "1\t1\nBo\t1\t9\nBo\t1\tAnn Ek\t1",
        "line 2: expected": "1\t1\nBo\tx\t9\nBo\t1\tAnn Ek\t1",
    }
    for message, text in broken.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            retrieval.read_pairs(file, names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0] * 6}, "`labels` holds one class"),
        ({"labels": range(6)}, "no pair of one class"),
        ({"labels": None}, "`labels` is missing"),
        ({"groups": [0] * 6}, "or one group"),
        ({"embeddings": np.full((6, 2), np.nan)}, "NaN or infinity"),
        ({"fars": [0.0]}, r"`fars` must be a number in \(0, 1\]"),
        ({"max_pairs": 0}, "`max_pairs`"),
    ],
)
def test_bad_input(arguments, message):
    good = {"embeddings": np.random.default_rng(0).standard_normal((6, 2)), "labels": [0, 0, 1, 1, 2, 2]}
    with pytest.raises(ValueError, match=message):
        retrieval.verification(**good | arguments)


def test_classes_of_one_image_are_noted():
    report = retrieval.verification(np.eye(4)[[0, 0, 1, 2]], [0, 0, 1, 2], resamples=0)
    assert any("2 classes of one image" in note for note in report.notes)


def test_report_and_plots(clustered, tmp_path):
    report = retrieval.verification(*clustered, resamples=20)
    content = json.loads(report.to_json())
    assert content["rates"]["0.01"]["tar"] == report.rates[0.01].tar and "curve" not in content
    assert f"| TAR@FAR=0.01 | {100 * report.rates[0.01].tar:.2f} |" in report.to_markdown()
    for name, plot in (("det.png", report.plot_det), ("scores.svg", report.plot_scores)):
        axes = plot(tmp_path / name).axes[0]
        assert axes.has_data() and (tmp_path / name).stat().st_size > 1000
    ticks = [text.get_text() for text in report.plot_det().axes[0].get_xticklabels()]
    assert "1" in ticks and "0.0001" not in ticks  # 49,920 pairs cannot show 1e-6


def test_the_threshold_of_a_fold_is_the_most_accurate_one_of_the_other_folds():
    """Counted by hand; pairs of one class are few in the first fold and many in the second."""
    few = ([0.9, 0.4], [0.8, 0.7, 0.3, 0.2, 0.1])  # best at 0.9: 6 of 7
    many = ([0.9, 0.6, 0.5, 0.45, 0.3], [0.7, 0.2])  # best at 0.3: 6 of 7
    scores = np.concatenate([*few, *many])
    same = np.repeat([True, False, True, False], [2, 5, 5, 2])
    listed = pairs.Pairs(np.arange(14), np.arange(14), same, np.ones(14), np.repeat([0, 1], 7), (7, 7))
    accuracy, error = _accuracy(scores, listed)
    assert accuracy == pytest.approx((4 / 7 + 3 / 7) / 2)  # at 0.3 of the first, at 0.9 of the second
    assert error == pytest.approx(1 / 14)
    assert _accuracy(scores, dataclasses.replace(listed, folds=None)) is None

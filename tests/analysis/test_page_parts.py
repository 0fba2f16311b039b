"""What the pages and their measurements are put together from: counts, ranks, curves, choices."""

import types

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.axes import Axes

from tf_detreg.analysis import inspect, memory, report, run_page, runs, samples, secants
from tf_detreg.datasets import ImageSet, Splits


def images_of(labels, names):
    pixels = np.random.default_rng(0).integers(0, 255, (len(labels), 4, 4, 3), dtype=np.uint8)
    return ImageSet(labels=labels, class_names=names, images=pixels)


def test_a_confused_pair_says_how_many_images_its_class_has():
    labelled = images_of([0, 0, 0, 1], ["a", "b"])
    assert inspect._pair(labelled, np.array(["a", "b"]), 0, 1, 2) == {
        "class": "a",
        "taken for": "b",
        "images": 3,
        "mistaken": 2,
    }
    strips = inspect._strips(labelled, np.array(["a", "b"], object), np.array([[0, 1]]))
    assert strips.count("data:image/png") == 4


def test_curves_begin_half_an_epoch_before_the_first_and_hold_what_was_logged(monkeypatch):
    limits, points = [], []
    set_xlim, plot = Axes.set_xlim, Axes.plot
    monkeypatch.setattr(Axes, "set_xlim", lambda self, *a, **k: limits.append(a) or set_xlim(self, *a, **k))
    monkeypatch.setattr(Axes, "plot", lambda self, *a, **k: points.append(a) or plot(self, *a, **k))
    report.curves([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "recall": 0.5}])
    assert points == [((1, 2), (2.0, 1.0)), ((2,), (0.5,))]
    assert limits.count((0.5, 2.5)) == 2


def test_the_best_row_of_a_table_stands_out():
    rows = [{"a": 1.0}, {"a": 2.0}]
    assert report.table(rows, best=1).count('class="best"') == 1
    assert '<tr><td>1.00</td></tr><tr class="best"><td>2.00</td></tr>' in report.table(rows, best=1)
    assert 'class="best"' not in report.table(rows)


def test_ranks_end_where_what_is_searched_ends():
    rows, labels = np.random.default_rng(0).normal(size=(6, 3)), np.repeat(np.arange(3), 2)
    alone = run_page.compare({"x": [rows]}, [labels], k=(1, 5, 6))["x"]
    assert set(alone.recall) == {1, 5}  # a query is not searched for in itself
    across = run_page.compare({"x": [rows[:2], rows]}, [labels[:2], labels], k=(1, 5, 6, 7))["x"]
    assert set(across.recall) == {1, 5, 6}


def test_raw_pixels_are_the_gray_values():
    pixels = np.random.default_rng(1).integers(1, 255, (3, 2, 4, 3), dtype=np.uint8)
    pixels[1] = 0
    found = run_page.raw_pixels(ImageSet(labels=[0, 0, 1], class_names=["a", "b"], images=pixels))
    wanted = pixels.astype(np.float32).mean(axis=-1).reshape(3, 8)
    wanted[1] = 1
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("tested", "unseen", "new"),
    [(["a", "c"], ["c"], True), (["c", "d"], ["c", "d"], True), (["a", "b"], ["a", "b"], False)],
)
def test_a_map_is_measured_on_classes_that_were_not_trained_on(tested, unseen, new, monkeypatch):
    monkeypatch.setattr(runs.lipschitz, "measure", lambda embedder, train, unseen, **options: (unseen, options))
    train, test = images_of([0, 0, 1, 1], ["a", "b"]), images_of([0, 0, 1, 1], tested)
    run = types.SimpleNamespace(embedder=None, config=types.SimpleNamespace(seed=3))
    (found, options), is_new = runs.analyze_run(run, Splits(train, train.subset([]), test), samples=4)
    assert sorted({found.class_names[label] for label in found.labels}) == unseen
    assert is_new == new and (options["samples"], options["pairs"], options["seed"]) == (4, 32, 3)


def test_two_classes_with_one_pair_are_enough_to_measure():
    rng = np.random.default_rng(0)
    points, labels = samples.take(np.eye(3), [0, 0, 1], rng, 8, "labels", False)
    assert points.shape == (3, 3) and sorted(labels) == [0, 0, 1]
    for wrong in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match="two classes or more, one of them with two samples"):
            samples.take(np.eye(3), wrong, rng, 8, "labels", False)


def test_peak_bytes_of_a_graph_by_hand():
    function = tf.function(lambda x: (2.0 * x + 1.0) * 3.0)
    graph = function.get_concrete_function(tf.TensorSpec((None, 4), tf.float32)).graph
    assert memory.peak_bytes(graph) == 2 * 16  # an operation's input and output; what came before is freed
    assert memory.peak_bytes(tf.function(lambda: tf.constant(1.0)).get_concrete_function().graph) == 4


def test_secants_of_other_classes_are_measured_where_there_are_some():
    rng = np.random.default_rng(0)
    points = [(tf.constant(rng.normal(size=(8, 3)), tf.float32), np.repeat(np.arange(2), 4)) for _ in range(2)]
    forward = memory.forward_map(lambda x: 2.0 * x, points[0][0], 0.5)
    for given, populations in ((points[:1], secants.POPULATIONS[:3]), (points, secants.POPULATIONS)):
        found = secants.secants_of_populations(forward, given, 6, 0.1, rng, "Secants", False)
        assert tuple(found) == populations
        for ratios in found.values():
            np.testing.assert_allclose(ratios, 2.0, rtol=1e-3)

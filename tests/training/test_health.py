"""Health measures against brute force, and the callback on a live and on a collapsed model."""

import itertools
import warnings

import keras
import numpy as np
import pytest

from tf_detreg import datasets, heads, losses
from tf_detreg.training import MetricModel, health


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def sample():
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, 15), rng.normal(size=(15, 6))


def test_mean_cosine_is_the_mean_over_pairs():
    _, x = sample()
    z = unit(x)
    wanted = np.mean([z[i] @ z[j] for i, j in itertools.permutations(range(15), 2)])
    np.testing.assert_allclose(health.mean_cosine(5 * x), wanted)
    np.testing.assert_allclose(health.mean_cosine(np.ones((3, 4))), 1)


def test_effective_rank_counts_directions():
    for rank in (1, 3, 6):
        points = np.concatenate([np.eye(rank, 8), -np.eye(rank, 8)])
        np.testing.assert_allclose(health.effective_rank(points), rank)
    assert health.effective_rank(np.ones((5, 4))) == 1
    assert 1 < health.effective_rank(sample()[1]) < 6


def test_within_between_ratio_by_the_definition():
    labels, x = sample()
    z = unit(x)
    means = np.array([z[labels == label].mean(axis=0) for label in labels])
    wanted = np.sum((z - means) ** 2) / np.sum((means - z.mean(axis=0)) ** 2)
    np.testing.assert_allclose(health.within_between_ratio(labels, x), wanted)
    assert health.within_between_ratio(labels, np.ones_like(x)) == float("inf")


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_active_triplets_by_counting(margin):
    labels, x = sample()
    z = unit(x)
    gaps = [
        np.linalg.norm(z[a] - z[p]) - np.linalg.norm(z[a] - z[n]) + margin
        for a, p, n in itertools.permutations(range(15), 3)
        if labels[a] == labels[p] != labels[n]
    ]
    np.testing.assert_allclose(health.active_triplets(labels, x, margin), np.mean(np.array(gaps) > 0))
    assert np.isnan(health.active_triplets([0, 1], np.eye(2)))


def test_proxies_never_hit():
    proxies = np.eye(5)
    assert health.proxies_never_hit(3 * proxies[[0, 0, 2]], proxies) == pytest.approx(0.6)
    assert health.proxies_never_hit(proxies, 7 * proxies) == 0


@pytest.mark.parametrize(
    "embeddings, part",
    [
        (np.ones((8, 4)) + 1e-3 * np.eye(8, 4), "collapse to one point"),
        (np.array([[1, 0], [-1, 0]] * 4) @ np.eye(2, 4), "1.0 direction"),
        (np.full((8, 4), np.nan), "not finite"),
        (np.repeat(np.eye(4), 2, axis=0), "same mean"),
    ],
)
def test_advice_names_what_went_wrong(embeddings, part):
    assert part in health.advice(health.measure([0, 1] * 4, embeddings))


def test_no_advice_for_a_healthy_embedding():
    assert health.advice(health.measure(*sample())) is None


def test_no_advice_for_a_narrow_cap_whose_classes_stand_apart():
    labels, embeddings = sample()
    capped = np.c_[embeddings / 20, np.full(len(embeddings), 10.0)]
    measures = health.measure(labels, capped)
    assert measures["mean_cosine"] > 0.99
    apart = measures | {"within_between_ratio": 0.3}
    assert health.advice(apart) is None and "one point" in health.advice(apart | {"within_between_ratio": 0.9})


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="embeddings"):
        health.measure([0], np.ones((1, 3)))
    with pytest.raises(ValueError, match="labels"):
        health.measure([0], np.ones((2, 3)))
    with pytest.raises(ValueError, match="images"):
        health.Health(np.zeros((3, 2, 2, 3)), [0])


def model(loss):
    images = keras.Input((8, 8, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    made = MetricModel(keras.Model(images, heads.Linear(4)(features)), loss)
    made.compile(keras.optimizers.Adam(1e-3))
    return made


def test_callback_logs_and_stays_quiet_or_warns():
    digits = datasets.digits().train
    watch = health.Health.of(digits, size=40)
    assert len(watch.images) == 40 and watch.images.dtype == np.float32
    assert len(np.unique(watch.labels)) < 7
    watch = health.Health(np.random.default_rng(0).uniform(0, 255, (12, 8, 8, 3)), np.arange(12) % 3)
    alive = model(losses.ProxyAnchor(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        history = alive.fit(watch.images, watch.labels, verbose=0, callbacks=[watch]).history
    assert {name for name in history if name.startswith("health_")} == {
        "health_mean_cosine",
        "health_effective_rank",
        "health_within_between_ratio",
        "health_active_triplets",
        "health_proxies_never_hit",
    }
    dead = model(losses.TripletSemiHard())
    dead.head.dense.kernel.assign(np.zeros(dead.head.dense.kernel.shape))
    dead.head.dense.bias.assign(np.ones(4))
    dead.optimizer.learning_rate = 0.0
    watch.settle = 1
    with pytest.warns(RuntimeWarning, match="Epoch 2: Embeddings collapse"):
        dead.fit(watch.images, watch.labels, epochs=2, verbose=0, callbacks=[watch])
    assert watch.warned == [2], "the first epoch's only step is within `settle`"


def test_a_metric_loss_of_zero_is_told():
    watch = health.Health(np.random.default_rng(0).uniform(0, 255, (12, 8, 8, 3)), np.arange(12) % 3)
    with pytest.warns(RuntimeWarning, match="Epoch 1: The metric loss is 0.*two images of a class"):
        model(losses.SupCon()).fit(watch.images, np.arange(12), verbose=0, callbacks=[watch])
    plain = model(losses.TripletBatchHard()).embedder
    plain.compile("adam", loss=losses.TripletBatchHard())
    with pytest.warns(RuntimeWarning, match="The metric loss is 0"):
        plain.fit(watch.images, np.arange(12), verbose=0, callbacks=[watch])
    assert watch.warned == [1]

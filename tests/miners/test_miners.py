"""Miners against brute force, on random and degenerate batches, within a batch and with a memory."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.losses.pair_references import distance, negatives, positives, triplets_of, unit
from tf_detreg import losses, miners

EVERY = [
    miners.AllPairs(),
    miners.SemiHard(0.3),
    miners.Hard(),
    miners.BatchHard(),
    miners.BatchEasyHard("easy", "semi_hard"),
    miners.BatchEasyHard("semi_hard", "easy"),
    miners.DistanceWeighted(seed=1),
    miners.MultiSimilarity(0.2),
    miners.Angular(35.0),
]
every_miner = pytest.mark.parametrize("miner", EVERY, ids=[type(m).__name__ for m in EVERY])


def batch(seed=0, size=14, dim=4):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 0, 0, 1, 1, 2], rng.integers(0, 4, size - 6)])
    return labels, rng.normal(size=(4, dim))[labels] + rng.normal(size=(size, dim))


def listed(mined):
    return set(zip(*(index.numpy().tolist() for index in mined), strict=True))


def by_brute_force(miner, y, x):
    d, s = distance(unit(x)), unit(x) @ unit(x).T
    anchors = range(len(y))
    pos, neg = {i: positives(y, i) for i in anchors}, {i: negatives(y, i) for i in anchors}
    if isinstance(miner, miners.SemiHard):
        return {(a, p, n) for a, p, n in triplets_of(y) if 0 < d[a, n] - d[a, p] <= miner.margin}
    if isinstance(miner, miners.Hard):
        return {(a, p, n) for a, p, n in triplets_of(y) if d[a, n] <= d[a, p]}
    if isinstance(miner, miners.Angular):
        center = {(a, p): (unit(x)[a] + unit(x)[p]) / 2 for a, p, _ in triplets_of(y)}
        angle = {
            t: np.arctan(d[t[0], t[1]] / 2 / np.linalg.norm(unit(x)[t[2]] - center[t[:2]])) for t in triplets_of(y)
        }
        return {t for t in triplets_of(y) if np.degrees(angle[t]) > miner.angle}
    kept = {"positives": set(), "negatives": set()}
    for i in anchors:
        p, n = pos[i], neg[i]
        if isinstance(miner, miners.BatchHard):
            chosen = [[max(p, key=lambda j: d[i, j])], [min(n, key=lambda j: d[i, j])]] if p and n else [[], []]
        elif isinstance(miner, miners.MultiSimilarity):
            lowest, highest = (min(s[i, p]) if p else np.inf), (max(s[i, n]) if n else -np.inf)
            e = miner.epsilon
            chosen = [[j for j in p if s[i, j] - e < highest], [k for k in n if s[i, k] + e > lowest]]
        elif isinstance(miner, miners.BatchEasyHard) and miner.positives == "easy":
            p = [min(p, key=lambda j: d[i, j])] if p else []
            n = [k for k in n if p and d[i, k] > d[i, p[0]]]
            chosen = [p, [min(n, key=lambda k: d[i, k])]] if n else [[], []]
        elif isinstance(miner, miners.BatchEasyHard):
            n = [max(n, key=lambda k: d[i, k])] if n else []
            p = [j for j in p if n and d[i, j] < d[i, n[0]]]
            chosen = [[max(p, key=lambda j: d[i, j])], n] if p else [[], []]
        else:
            chosen = [p, n]
        for side, found in zip(kept, chosen, strict=True):
            kept[side] |= {(i, j) for j in found}
    return kept


@every_miner
@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force(miner, seed):
    y, x = batch(seed)
    mined = miner(y, x)
    if isinstance(miner, miners.DistanceWeighted):
        pairs = [(a, p) for a, p, _ in triplets_of(y)]
        assert {t[:2] for t in listed(mined)} <= set(pairs)
        assert listed(mined) <= set(triplets_of(y))
        return
    expected = by_brute_force(miner, y, x)
    if isinstance(expected, set):
        assert listed(mined) == expected
        assert len(expected) > 0
        return
    for side in ("positives", "negatives"):
        assert set(map(tuple, np.argwhere(getattr(mined, side).numpy()).tolist())) == expected[side]
        assert expected[side]


@every_miner
def test_degenerate_batches(miner):
    loss = losses.Triplet(miner=miner)
    spread = np.random.default_rng(8).normal(size=(6, 4)).astype("float32")
    for labels, x in [
        (np.arange(6), spread),
        (np.zeros(6, int), spread),
        ([0, 0, 1, 1, 2, 2], np.ones((6, 4), "float32")),
        ([0, 1, 0, 1, 0, 1], np.concatenate([spread[:3], -spread[:3]])),
        ([0, 0, 1, 1, 2, 2], np.zeros((6, 4), "float32")),
        ([0], spread[:1]),
    ]:
        x = tf.constant(x, tf.float16)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        assert np.isfinite(float(value))
        assert np.isfinite(tape.gradient(value, x).numpy()).all()


@every_miner
def test_every_loss_takes_it(miner):
    y, x = batch(3)
    for loss in (losses.Contrastive, losses.MultiSimilarity, losses.Circle, losses.LiftedStructure, losses.Margin):
        assert np.isfinite(float(loss(miner=miner)(y, x)))


@every_miner
def test_works_in_a_graph_and_with_a_memory(miner):
    y, x = batch(5)
    memory = losses.CrossBatchMemory(losses.Contrastive(miner=miner), memory_size=20)
    step = tf.function(lambda y, x: memory(y, x, training=True))
    memory.build(y.shape, x.shape)
    for _ in range(3):
        assert np.isfinite(float(step(tf.constant(y), tf.constant(x, tf.float32))))


@every_miner
def test_compiled_by_xla_it_chooses_the_same(miner):
    taking = losses.Contrastive(miner=miner), losses.Triplet(miner=miner)
    # One compilation of all: each takes seconds.
    compiled = tf.function(lambda y, x: (tuple(miner(y, x)), [loss(y, x) for loss in taking]), jit_compile=True)
    for seed in range(2):
        y, x = batch(seed)
        y, x = tf.constant(y), tf.constant(x, tf.float32)
        mined, (chosen, values) = miner(y, x), compiled(y, x)
        if isinstance(miner, miners.DistanceWeighted):  # its draws under XLA are others
            assert len(mined[0]) == len(chosen[0]) and listed(chosen) <= set(triplets_of(y.numpy()))
            continue
        for ours, plain in zip(chosen, mined, strict=True):
            np.testing.assert_array_equal(ours, plain)
        for loss, value in zip(taking, values, strict=True):
            assert float(value) == pytest.approx(float(loss(y, x)), rel=1e-4)


@every_miner
def test_round_trip_and_label_check(miner):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(miner))
    assert type(again) is type(miner)
    assert again.get_config() == miner.get_config()
    assert set(miner.get_config()) == set(inspect.signature(type(miner)).parameters)
    y, x = batch()
    for wrong in (y - 1, y.astype("float32"), y[:-1]):
        with pytest.raises(ValueError, match="`labels` must"):
            miner(wrong, x)


def test_easy_hard_strategies_that_do_not_go_together():
    for options in (("semi_hard", "semi_hard"), ("all", "semi_hard"), ("semi_hard", "all"), ("nearest", "hard")):
        with pytest.raises(ValueError, match="received"):
            miners.BatchEasyHard(*options)


def test_distance_weights_follow_the_density_of_distances():
    """Drawn distances of random points are about uniform between the cutoffs, whatever their own density."""
    dim, count = 16, 1200
    x = np.random.default_rng(2).normal(size=(count, dim))
    y = np.arange(count) // 2
    anchors, _, chosen = (index.numpy() for index in miners.DistanceWeighted(0.9, 1.4, seed=3)(y, x))
    drawn = distance_between(unit(x)[anchors], unit(x)[chosen])
    counts, _ = np.histogram(drawn, bins=5, range=(0.9, 1.4))
    assert drawn.max() < 1.4
    assert counts.min() > 0.7 * len(drawn) / 5
    plain, _ = np.histogram(distance(unit(x[:200])), bins=5, range=(0.9, 1.4))
    assert plain.min() < 0.3 * plain.sum() / 5


def distance_between(a, b):
    return np.linalg.norm(a - b, axis=1)


@pytest.mark.parametrize("dim", [2, 512])
def test_distance_weights_survive_antipodes_and_many_dimensions(dim):
    x = np.random.default_rng(4).normal(size=(8, dim))
    x[4:] = -x[:4]
    y = np.arange(8) // 2
    for cutoff in (None, 1.99):
        mined = miners.DistanceWeighted(nonzero_loss_cutoff=cutoff, seed=0)(y, x)
        assert listed(mined) <= set(triplets_of(y))
        assert len(listed(mined)) == 8


def test_memory_leaves_out_the_sample_itself_and_empty_places():
    loss = losses.CrossBatchMemory(losses.Contrastive(power=1, average="all"), memory_size=6)
    x = np.eye(4, dtype="float32")[[0, 1]]
    assert float(loss([0, 1], x, training=True)) == pytest.approx(0.0, abs=1e-6)  # √2 apart, beyond the margin
    assert loss.memory_labels.numpy().tolist() == [0, 1, -1, -1, -1, -1]
    assert float(loss([1, 0], x, training=True)) > 1  # the same vectors with exchanged labels
    assert float(loss([0, 1], x, training=False)) == pytest.approx(0.0, abs=1e-6)
    assert loss.memory_labels.numpy().tolist() == [0, 1, 1, 0, -1, -1]
    for _ in range(2):
        loss([2, 3], x, training=True)
    assert loss.memory_labels.numpy().tolist() == [2, 3, 1, 0, 2, 3]


def test_memory_waits_and_refuses():
    loss = losses.CrossBatchMemory(losses.Triplet(), memory_size=8, start=2)
    y, x = batch(1, size=8)
    plain = float(losses.Triplet()(y, x.astype("float32")))
    values = [float(loss(y, x.astype("float32"), training=True)) for _ in range(3)]
    assert values[:2] == pytest.approx([plain, plain])
    with pytest.raises(ValueError, match="memory_size"):
        loss(*batch(1, size=9), training=True)
    with pytest.raises(ValueError, match="pair loss"):
        losses.CrossBatchMemory(losses.ProxyAnchor(3))


@pytest.mark.parametrize("inner", [losses.Triplet(direction=0.3), losses.NPairs(), losses.Margin(4), losses.FastAP()])
def test_memory_takes_any_pair_loss_and_saves(inner, tmp_path):
    loss = losses.CrossBatchMemory(inner, memory_size=16)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    y, x = batch(2, size=8)
    for copy in (loss, again):
        values = [float(copy(y, x.astype("float32") * (1 + i), training=True)) for i in range(3)]
        assert np.isfinite(values).all()
    assert float(again(y, x.astype("float32"))) == pytest.approx(float(loss(y, x.astype("float32"))))


XLA = [
    losses.Triplet(),
    losses.Triplet(negatives="semi_hard"),
    losses.Triplet(soft=True),
    losses.Triplet(swap=True),
    losses.Triplet(direction=0.3),
    losses.TripletSemiHard(),
    losses.TripletBatchHard(),
    losses.NPairs(),
    losses.Circle(),
]


@pytest.mark.parametrize("loss", XLA)
def test_xla_gives_the_same_value_and_gradient(loss):
    y, x = batch(7)
    x = tf.constant(x, tf.float32)

    def value_and_gradient(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return value, tape.gradient(value, x)

    compiled = tf.function(value_and_gradient, jit_compile=True)(tf.constant(y), x)
    for ours, plain in zip(compiled, value_and_gradient(y, x), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)

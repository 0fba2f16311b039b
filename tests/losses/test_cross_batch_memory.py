"""Cross-batch memory: the authors' gradient, the warm-up, the filling, and which entries count."""

import numpy as np
import pytest
import tensorflow as tf

from tests.losses.pair_references import unit
from tf_detreg import losses

AUTHORS = {"power": 1, "negative_margin": 0.5, "distance": "cosine", "average": "anchors"}


def batch(seed, size=24, classes=6, dim=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    return labels, rng.normal(size=(classes, dim))[labels] + rng.normal(size=(size, dim))


def authors_loss(labels, z, memory_labels, memory):
    """Sums over positives and hard negatives, both divided by B; pairs of a sample with itself have similarity 1."""
    s = tf.matmul(z, memory, transpose_b=True)
    same = labels[:, None] == memory_labels[None, :]
    pull = tf.reduce_sum(tf.where(same & (s < 1 - 1e-5), 1 - s, 0))
    push = tf.reduce_sum(tf.where(~same & (s > 0.5), s, 0))
    return (pull + push) / len(labels)


def gradient(function, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


@pytest.mark.parametrize("average, equal", [("anchors", True), ("all", False), ("nonzero", False)])
def test_sums_divided_by_the_batch_are_what_the_authors_minimize(average, equal):
    ours = losses.CrossBatchMemory(
        losses.Contrastive(**AUTHORS | {"average": average}), memory_size=60, batch_weight=1.0, dtype="float64"
    )
    earlier_labels, earlier = batch(1)
    ours.fill(earlier_labels, earlier)
    labels, x = batch(2)

    def theirs(x):
        z = tf.linalg.l2_normalize(x, axis=1)
        known = tf.constant(np.concatenate([unit(earlier), unit(x.numpy())]))
        return authors_loss(labels, z, np.concatenate([earlier_labels, labels]), known) + authors_loss(
            labels, z, labels, z
        )

    found, wanted = gradient(lambda x: ours(labels, x, training=True), x), gradient(theirs, x)
    cosine = np.sum(found * wanted) / np.linalg.norm(found) / np.linalg.norm(wanted)
    if equal:
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    else:
        assert cosine < 0.99


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_the_loss_within_the_batch_counts_by_its_weight(weight):
    inner = losses.Contrastive(**AUTHORS)
    labels, x = batch(2)

    def value(weight):
        loss = losses.CrossBatchMemory(inner, memory_size=60, batch_weight=weight, dtype="float64")
        loss.fill(*batch(1))
        return float(loss(labels, x, training=True))

    within = float(np.mean(inner.call(tf.constant(labels), tf.constant(x))))
    assert within > 0.01
    assert value(weight) == pytest.approx(value(0.0) + weight * within)


@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_is_written_before_the_start(compiled):
    """The warm-up is there to keep embeddings out that still move fast."""
    loss = losses.CrossBatchMemory(losses.Contrastive(), memory_size=8, start=2)
    labels, x = batch(3, size=4)
    loss.build(labels.shape, x.shape)
    plain = float(losses.Contrastive()(labels, x.astype("float32")))

    def call(labels, x):
        return loss(labels, x, training=True)

    step = tf.function(call, jit_compile=True) if compiled else call
    for _ in range(2):
        assert float(step(tf.constant(labels), tf.constant(x, tf.float32))) == pytest.approx(plain)
        assert (
            int(loss.filled.value) == 0 and np.all(loss.memory_labels.numpy() == -1) and not loss.memory.numpy().any()
        )
    step(tf.constant(labels), tf.constant(x, tf.float32))
    assert loss.memory_labels.numpy().tolist() == [*labels, -1, -1, -1, -1]


def test_a_sample_is_not_compared_with_itself_but_with_its_earlier_embedding():
    """The slot of the sample in this step is left out, and no other one of its class."""
    inner = losses.Contrastive(power=1, average="anchors", negative_margin=0.0)
    loss = losses.CrossBatchMemory(inner, memory_size=4)
    x = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    assert float(loss([0, 1], x, training=True)) == 0.0
    turned = x[::-1].copy()
    assert float(loss([0, 1], turned, training=True)) == pytest.approx(2**0.5)


def test_a_batch_wraps_around_the_end_of_the_memory_and_still_skips_itself():
    inner = losses.SupCon(temperature=1.0)
    loss = losses.CrossBatchMemory(inner, memory_size=5)
    loss.fill([7, 7, 8], np.eye(3, dtype="float32"))
    x = np.eye(3, dtype="float32")
    value = float(loss([7, 8, 9], x, training=True))
    assert loss.memory_labels.numpy().tolist() == [9, 7, 8, 7, 8]
    # Without its new slot each anchor sees four entries. The positive of row 0 and that of row 1 have cosine 0; of the
    # others one, for row 1, has cosine 1. Row 2 has no positive.
    expected = [np.log(4), np.log(3 + np.e)]
    assert value == pytest.approx(np.mean(expected), abs=1e-6)


def test_fill_before_the_first_use_keeps_the_latest_and_checks_what_it_gets():
    loss = losses.CrossBatchMemory(losses.Contrastive(), memory_size=3)
    labels, x = batch(4, size=5)
    loss.fill(labels, x)
    assert loss.memory_labels.numpy().tolist() == labels[-3:].tolist()
    np.testing.assert_allclose(loss.memory.numpy(), x[-3:], rtol=1e-6)
    assert int(loss.filled.value) == 3 and int(loss.calls.value) == 0
    assert float(loss(labels[:1], x[:1], training=True)) > 0  # one sample alone would cost 0
    with pytest.raises(ValueError, match="`labels` must"):
        loss.fill(labels - 10, x)
    with pytest.raises(ValueError, match="finite"):
        loss.fill(labels, x * np.nan)
    with pytest.raises(ValueError, match="shape"):
        loss.fill(labels, x[:, :2])


def authors_fast_ap_gradient(labels, z, bins=10):
    """The hand-written backward pass of the authors' code, for unit vectors, in numpy."""
    n, delta = len(z), 4 / bins
    same = labels[:, None] == labels[None]
    positive, negative = (same & ~np.eye(n, dtype=bool)).astype(float), (~same).astype(float)
    squares, edges = 2 - 2 * z @ z.T, np.linspace(0, 4, bins + 1)
    pulse = np.maximum(0, 1 - np.abs(squares[..., None] - edges) / delta)
    h_pos, h_neg = (pulse * positive[..., None]).sum(1), (pulse * negative[..., None]).sum(1)
    cum_pos, cum = h_pos.cumsum(1), (h_pos + h_neg).cumsum(1)
    safe = np.where(cum > 0, cum, np.inf)
    count = positive.sum(1)[:, None]
    below, upto = np.tril(np.ones((bins + 1, bins + 1)), -1), np.tril(np.ones((bins + 1, bins + 1)))
    with_pos = (cum_pos * cum + h_pos * (cum - cum_pos)) / safe**2 + (h_pos * (cum - cum_pos) / safe**2) @ below
    with_neg = (-h_pos * cum_pos / safe**2) @ upto
    slope = ((squares[..., None] > edges - delta) & (squares[..., None] <= edges)).astype(float) / delta
    slope -= ((squares[..., None] > edges) & (squares[..., None] <= edges + delta)).astype(float) / delta
    total = np.zeros((n, n))
    for edge in range(bins + 1):
        for weights, kind in ((with_pos / count, positive), (with_neg / count, negative)):
            each, diagonal = slope[..., edge] * kind, np.diag(weights[:, edge])
            total += each @ diagonal + diagonal @ each
    return (z.T @ total).T


def test_the_authors_fast_ap_gradient_is_half_the_batch_size_times_ours():
    labels, x = np.repeat(np.arange(4), 4), unit(batch(5, size=16)[1])
    theirs = authors_fast_ap_gradient(labels, x)
    theirs -= x * np.sum(x * theirs, axis=1, keepdims=True)  # along the sphere
    ours = gradient(lambda x: losses.FastAP()(labels, x), x)
    np.testing.assert_allclose(theirs, len(x) / 2 * ours, atol=1e-9)

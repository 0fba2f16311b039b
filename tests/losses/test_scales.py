"""Embeddings and proxies of every length: the same value, and the gradient that belongs to it."""

import numpy as np
import pytest
import tensorflow as tf

from tests.losses.table import ONE_A_CLASS, ROWS, measure
from tf_detreg import heads, losses
from tf_detreg.vectors import unit

UNNORMALIZED = (losses.NPairs, losses.NPairsMultilabel)
SCALED = [row for row in ONE_A_CLASS if row.loss not in UNNORMALIZED]
SCALES = (1e-34, 1e-20, 1e-7, 1e19, 1e34)


def test_unit_is_exact_at_every_scale_in_value_and_gradient():
    x = np.random.default_rng(0).normal(size=(5, 4))
    upstream = np.random.default_rng(1).normal(size=(5, 4))
    length = np.linalg.norm(x, axis=1, keepdims=True)
    wanted = x / length
    slope = (upstream - wanted * np.sum(wanted * upstream, axis=1, keepdims=True)) / length
    for dtype, scales, tolerance in (("float32", SCALES, 1e-6), ("float64", (1e-300, 1e-30, 1.0, 1e30, 1e300), 1e-14)):
        for scale in scales:
            v = tf.constant(x * scale, dtype)
            with tf.GradientTape() as tape:
                tape.watch(v)
                found = unit(v)
                total = tf.reduce_sum(found * tf.constant(upstream, dtype))
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
            gradient = tape.gradient(total, v).numpy().astype(np.float64) * scale
            np.testing.assert_allclose(gradient, slope, rtol=20 * tolerance, atol=20 * tolerance)


def test_unit_of_nothing_and_of_what_is_no_number():
    v = tf.constant([[0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(v)
        found = unit(v)
    assert found.numpy()[0].tolist() == [0.0, 0.0]
    assert np.isnan(found.numpy()[1:]).any(axis=1).all()
    assert tape.gradient(found, v).numpy()[0].tolist() == [1.0, 1.0]


def test_a_gradient_beyond_the_type_is_held_at_its_largest_number():
    v = tf.constant([[1e-37, 1e-37]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(v)
        total = tf.reduce_sum(unit(v) * [[1e5, -1e5]])
    assert np.isfinite(tape.gradient(total, v)).all()


@pytest.mark.parametrize("row", SCALED, ids=[row.name for row in SCALED])
def test_a_loss_does_not_depend_on_the_length_of_embeddings(row):
    """A sum of squares underflows below 1e-19 and overflows above 1.8e19; lengths below 1e-6 were left as they are."""
    labels, x = row.batch(seed=1)
    loss = row.build("float32")
    value, slope, _ = measure(loss, labels, x.astype(np.float32))
    for scale in SCALES:
        loss = row.build("float32")
        scaled, scaled_slope, _ = measure(loss, labels, (x * scale).astype(np.float32))
        assert float(scaled) == pytest.approx(float(value), rel=2e-5, abs=1e-6), scale
        if scale > 1e-33:  # else beyond float32
            found = scaled_slope.astype(np.float64) * scale
            np.testing.assert_allclose(found, slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


@pytest.mark.parametrize("row", [row for row in SCALED if "num_classes" in row.options], ids=lambda row: row.name)
def test_a_loss_does_not_depend_on_the_length_of_proxies(row):
    labels, x = row.batch(seed=2)
    loss = row.build("float32")
    if not hasattr(loss, "proxies"):
        pytest.skip("no proxies")
    start, value = loss.proxies.numpy(), float(loss(labels, x.astype(np.float32)))
    for scale in SCALES:
        loss.proxies.assign(start * np.float32(scale))
        assert float(loss(labels, x.astype(np.float32))) == pytest.approx(value, rel=2e-5, abs=1e-6)


def test_a_head_scales_outputs_of_every_length_to_one():
    y = tf.constant(np.random.default_rng(3).normal(size=(4, 8)), tf.float32)
    head = heads.Linear(8)
    for scale in SCALES:
        np.testing.assert_allclose(tf.linalg.norm(head.normalize(y * scale), axis=1), 1.0, atol=1e-6)


def test_every_loss_that_normalizes_is_here():
    assert {row.loss for row in SCALED} == {row.loss for row in ROWS} - set(UNNORMALIZED)

"""What only proxy losses have: arguments, many classes, limits of a scale, and the direction of a push."""

import numpy as np
import pytest
import tensorflow as tf

from tests.losses import proxy_references as reference
from tests.losses.table import CLASSES, DIM, measure
from tf_detreg import losses
from tf_detreg.losses.proxy_direction import direction_cosines


def batch(seed=0, size=12):
    rng = np.random.default_rng(seed)
    return rng.integers(0, CLASSES - 2, size), rng.normal(size=(size, DIM))


def test_length_of_the_vectors_does_not_matter():
    labels, x = batch()
    layer = losses.ProxyAnchor(CLASSES, dtype="float64")
    value = float(layer(labels, x))
    layer.proxies.assign(layer.proxies.numpy() * 0.2)
    assert float(layer(labels, 3 * x)) == pytest.approx(value, rel=1e-9)


def test_lengths_far_from_one_do_not_break_the_normalisation():
    labels, x = batch()
    for layer in (losses.ProxyAnchor(CLASSES), losses.ArcFace(CLASSES)):
        layer.build(None, x.shape)
        for size in (1e-20, 1e15):
            for result in measure(layer, labels, (size * x).astype("float32"))[:2]:
                assert np.isfinite(result).all()


def test_zero_proxies_leave_zero():
    """A vector without a direction still gets a gradient, and one that half precision can hold."""
    labels, x = batch()
    layer = losses.NormalizedSoftmax(CLASSES, DIM, initializer="zeros")
    layer.build()
    _, _, slopes = measure(layer, labels, x.astype("float32"))
    assert 1e-3 < np.abs(slopes["proxies"]).max() < 100


def test_tiny_alpha_and_huge_alpha_of_proxy_anchor_are_exact():
    labels, x = batch()
    for alpha in (1e-3, 300.0):
        layer = losses.ProxyAnchor(CLASSES, DIM, alpha=alpha, dtype="float64")
        layer.build()
        layer.proxies.assign(np.random.default_rng(1).normal(size=layer.proxies.shape))
        proxies = reference.unit(layer.proxies.numpy())
        wanted = reference.proxy_anchor(labels, reference.unit(x), proxies, CLASSES, alpha=alpha)
        np.testing.assert_allclose(layer(labels, x), wanted, rtol=1e-9)
        assert np.isfinite(losses.ProxyAnchor(CLASSES, alpha=alpha)(labels, x))


def test_size_of_the_embeddings_is_checked():
    with pytest.raises(ValueError, match="dim=5"):
        losses.ProxyAnchor(CLASSES, 5)(np.zeros(2, int), np.ones((2, 6)))


def test_arc_face_falls_all_the_way_to_the_opposite_side():
    """The target logit must decrease with the angle on the whole half circle, also beyond pi - margin."""
    angles = np.linspace(0.01, np.pi - 0.01, 200)
    target = losses.ArcFace(2, margin=0.5).widened(tf.constant(np.cos(angles)))
    assert (np.diff(target) < 0).all()


def test_a_hundred_thousand_classes_fit():
    """No (B, C, dim) tensor (3.3 GB here): 8 x 100,000 similarities are enough."""
    rng = np.random.default_rng(0)
    layer = losses.ProxyAnchor(100_000, 8)
    x = rng.normal(size=(8, 8)).astype("float32")
    layer.build(None, x.shape)
    value, slope, slopes = measure(layer, rng.integers(0, 100_000, 8), x)
    for result in (value, slope, slopes["proxies"]):
        assert np.isfinite(result).all()


def test_direction_of_coincident_and_antipodal_points_is_finite_and_bounded():
    q = tf.constant([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    z = tf.constant([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    own = tf.constant([[[0, 0]], [[1, 0]], [[2, 0]]])
    cosines = direction_cosines(tf.matmul(z, q, transpose_b=True), own, q).numpy()
    assert np.isfinite(cosines).all() and (np.abs(cosines) < 1 + 1e-5).all()
    # From (0, 1): towards (1, 0) and (-1, 0) is a right angle, towards (1, 0) itself none.
    np.testing.assert_allclose(cosines[2, :3], [1, 0, 1], atol=1e-6)


def test_direction_weakens_the_push_of_a_proxy_on_the_own_side():
    """A foreign proxy behind the own one pushes less with direction."""

    def push(direction):
        loss = losses.ProxyAnchor(2, 2, direction=direction, dtype="float64")
        loss.build()
        loss.proxies.assign([[1.0, 0.0], [0.9, -0.436]])
        _, _, slopes = measure(loss, np.array([0]), np.array([[0.8, 0.6]]))
        return np.linalg.norm(slopes["proxies"][1])

    assert push(0.02) < push(0.0)

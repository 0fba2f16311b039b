"""What each head computes, against autodiff, brute force and finite differences, in float64."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.heads.table import ALL, FLOWS, features, jacobian, make
from tf_detreg.heads.conditioner import Conditioner


@pytest.mark.parametrize("name", FLOWS)
def test_shifted_regularity_is_log_det_of_jacobian_plus_identity_per_factor(name):
    head = make(name)
    z = head.project(features())
    d = head.dim
    y, log_scales = head.flow(z)
    if name.startswith("ffjord"):
        # The limit of infinitely many thin layers: half the log-determinant of the whole.
        brute = 0.5 * np.linalg.slogdet(jacobian(lambda z: head.flow(z)[0], z))[1]
    else:
        brute = np.zeros(len(z))
        point = z
        for factor in head.factors(lambda log_scale: None):
            if factor.name != "reverse":  # A permutation of the coordinates is no factor of the penalty.
                shifted = jacobian(factor.forward, point).numpy() + np.eye(d)
                brute += np.linalg.slogdet(shifted)[1] - d * np.log(2)
            point = factor.forward(tf.identity(point))
        np.testing.assert_allclose(point, y, atol=1e-12)
    assert np.abs(brute).max() > 1e-3
    np.testing.assert_allclose(head.regularity(log_scales, "shifted"), brute.mean() / d, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_log_det_is_that_of_the_whole_jacobian(name):
    head = make(name)
    z = head.project(features())
    brute = np.linalg.slogdet(jacobian(lambda z: head.flow(z)[0], z))[1]
    np.testing.assert_allclose(head.regularity(head.flow(z)[1], "log_det"), brute.mean() / head.dim, atol=1e-9)
    np.testing.assert_allclose(head.bijector().forward_log_det_jacobian(z, event_ndims=1), brute, atol=1e-8)


@pytest.mark.parametrize("name", FLOWS)
def test_isometric_is_mean_square_of_log_scales(name):
    head = make(name)
    log_scales = [s.numpy() for s in head.flow(head.project(features()))[1]]
    if name.startswith("ffjord"):
        expected = np.mean((log_scales[0] / head.dim) ** 2)
    else:
        expected = sum(np.sum(s**2) / (len(s) if s.ndim == 2 else 1) for s in log_scales) / head.dim
    assert expected > 1e-4
    np.testing.assert_allclose(head.regularity([tf.constant(s) for s in log_scales], "isometric"), expected, rtol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_inverse(name):
    head = make(name)
    z = head.project(features())
    y, _ = head.flow(z)
    assert np.abs(y - z).max() > 0.05
    np.testing.assert_allclose(head.inverse(y), z, atol=1e-7 if name == "ffjord" else 1e-9)
    np.testing.assert_allclose(head.bijector().forward(z), y, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(["real_nvp", "nice", "glow"]),
    dim=st.integers(2, 7),
    depth=st.integers(1, 4),
    grow=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_couplings_invert_at_any_size_depth_and_weights(name, dim, depth, grow, seed):
    head = make(name, dim=dim, depth=depth, grow=grow)
    z = head.project(features(3, seed=seed))
    y, log_scales = head.flow(z)
    assert all(np.abs(s).max() <= head.scale_bound for s in log_scales)
    assert np.abs(head.inverse(y) - z).max() < 1e-7 * (1 + np.abs(y).max())


def objective(head, x, weights, training=False):
    y, log_scales = head.flow(head.project(x, training), training)
    loss = tf.reduce_sum(weights * head.normalize(y))
    return loss + 2.0 * head.regularity(log_scales) if log_scales else loss


@pytest.mark.parametrize("name", ALL)
def test_gradients_agree_with_finite_differences_and_none_is_missing(name):
    head = make(name)
    x, weights = features(), features(width=5, seed=2)
    variables = head.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = objective(head, x, weights)
    gradients = tape.gradient(value, [x, *(v.value for v in variables)])
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    random = np.random.default_rng(3)
    start = [v.numpy() for v in variables]
    directions = [random.standard_normal(g.shape) for g in gradients]

    def at(step):
        for variable, old, direction in zip(variables, start, directions[1:], strict=True):
            variable.assign(old + step * direction)
        return float(objective(head, x + step * directions[0], weights))

    step = 1e-5
    numeric = (at(step) - at(-step)) / (2 * step)
    analytic = sum(float(np.sum(g * direction)) for g, direction in zip(gradients, directions, strict=True))
    assert abs(numeric - analytic) < 2e-6 * max(1.0, abs(analytic))


@pytest.mark.parametrize("name", FLOWS)
def test_penalty_is_weight_times_regularity_and_only_while_training(name):
    head = make(name, penalty=0.3, measure="log_det", **({"data_dependent": False} if name == "glow" else {}))
    x = features()
    head(x)
    assert head.losses == []
    head(x, training=True)
    expected = 0.3 * head.regularity(head.flow(head.project(x))[1], "log_det")
    assert len(head.losses) == 1
    np.testing.assert_allclose(head.losses[0], expected, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "residual_mlp"])
def test_controls_have_no_log_scales(name):
    head = make(name)
    head(features(), training=True)
    _, log_scales = head.flow(head.project(features()))
    assert head.losses == [] and log_scales == [] and float(head.regularity(log_scales)) == 0.0


@pytest.mark.parametrize("name", ALL)
def test_untrained_head_returns_the_projected_feature(name):
    head = make(name, dim=32, width=48, grow=0.0, hidden=64) if name != "linear" else make(name, 32, 48, 0.0)
    x = features(width=48)
    projected = tf.math.l2_normalize(head.dense(x), axis=-1)
    cosine = tf.reduce_sum(head(x) * projected, axis=-1)
    assert float(tf.reduce_min(cosine)) > 0.999


@pytest.mark.parametrize("name", ["real_nvp", "nice", "glow"])
def test_each_conditioner_runs_once_in_a_training_call(name, monkeypatch):
    head = make(name, penalty=1.0, **({"data_dependent": False} if name == "glow" else {}))
    calls = []
    original = Conditioner.call
    monkeypatch.setattr(Conditioner, "call", lambda self, *a, **k: calls.append(self.name) or original(self, *a, **k))
    head(features(), training=True)
    assert sorted(calls) == sorted(net.name for net in head.conditioners)


@pytest.mark.parametrize("name", ALL)
def test_no_stale_result_after_a_weight_update(name):
    """TFP's bijectors cache by parameters and inputs: the same tensor after an update must give something new."""
    head = make(name)
    z = head.project(features())
    before, _ = head.flow(z)
    for variable in head.trainable_variables:
        variable.assign(variable.numpy() + 0.3)
    after, _ = head.flow(z)
    if name != "linear":
        assert np.abs(after - before).max() > 1e-3
    if name in FLOWS:
        np.testing.assert_allclose(head.inverse(after), z, atol=1e-6)


def test_nice_penalty_reaches_only_the_scaling():
    head = make("nice")
    z = head.project(features())
    with tf.GradientTape() as tape:
        regularity = head.regularity(head.flow(z)[1])
    gradients = tape.gradient(regularity, [v.value for v in head.trainable_variables])
    touched = [v.name for v, g in zip(head.trainable_variables, gradients, strict=True) if g is not None]
    assert touched == ["raw_scale"]


def test_glow_first_batch_sets_the_actnorms_once():
    head = make("glow", dim=6, grow=0.0, depth=1, scale_bound=3.0)
    x = features(64)
    head(x, training=True)
    shift, scale, *_ = head.step(0, lambda log_scale: None)
    normed = scale.forward(shift.forward(head.project(x)))
    np.testing.assert_allclose(np.mean(normed, axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.std(normed, axis=0), 1, atol=1e-4)
    kept = head.norm_shift[0].numpy()
    head(features(64, seed=9) + 5.0, training=True)
    np.testing.assert_array_equal(head.norm_shift[0].numpy(), kept)


def test_ffjord_hutchinson_is_unbiased_and_fixed_at_inference():
    exact = make("ffjord", steps=4)
    noisy = make("ffjord", steps=4, trace="hutchinson")
    z = exact.project(features(2))
    y, (log_det,) = exact.flow(z)
    many = tf.repeat(z, 20000, axis=0)
    tf.random.set_seed(0)
    y_noisy, (estimates,) = noisy.flow(many, training=True)
    np.testing.assert_allclose(y_noisy[::20000], y, atol=1e-12)
    estimates = estimates.numpy().reshape(2, -1)
    standard_error = estimates.std(axis=1) / np.sqrt(20000)
    assert np.all(np.abs(estimates.mean(axis=1) - log_det[:, 0]) < 4 * standard_error)
    np.testing.assert_array_equal(noisy.flow(z)[1][0], noisy.flow(tf.identity(z))[1][0])


def test_ffjord_bound_holds_however_large_the_weights():
    head = make("ffjord_adaptive", grow=30.0, tolerance=1e-4, scale_bound=0.2)
    _, (log_det,) = head.flow(head.project(features()))
    assert np.abs(log_det / head.dim).max() <= 0.2 + 1e-3


def test_coupling_bound_holds_however_large_the_weights():
    for name in ("real_nvp", "nice", "glow"):
        head = make(name, grow=100.0, scale_bound=0.2)
        _, log_scales = head.flow(head.project(features()))
        assert max(float(tf.reduce_max(tf.abs(s))) for s in log_scales) <= 0.2


@pytest.mark.parametrize("name", ["ffjord", "ffjord_adaptive"])
@pytest.mark.parametrize("bound", [0.1, 0.5])
def test_no_point_leaves_the_bound_of_a_continuous_flow(name, bound):
    """`|log det J| / d <= b` whatever the weights; without the bound, these weights reach far beyond it."""
    head = make(name, grow=0.0, scale_bound=bound, hidden=7, **({"tolerance": 1e-4} if "adaptive" in name else {}))
    field = head.field
    field.inner.assign(np.eye(5, 7))
    field.outer.assign(30.0 * np.eye(7, 5))
    log_det = head.flow(head.project(1e-3 * features()))[1][0] / head.dim
    assert float(tf.reduce_max(tf.abs(log_det))) <= bound * (1 + 1e-6)
    assert float(tf.reduce_max(tf.abs(log_det))) > 0.2 * bound  # and the bound is what holds it
    field.outer.assign(1e-3 * np.eye(7, 5))
    small = field.parameters()
    np.testing.assert_array_equal(small["outer"], field.outer.value)  # within the bound nothing is scaled


@pytest.mark.parametrize("name", ["residual_mlp", "real_nvp", "nice", "glow"])
def test_one_block_or_layer_is_enough(name):
    smallest = {"blocks": 1} if name == "residual_mlp" else {"depth": 1}
    assert make(name, **smallest)(features()).shape == (6, 5)
    with pytest.raises(ValueError, match=f"`{next(iter(smallest))}` must be"):
        make(name, **dict.fromkeys(smallest, 0))

"""Non-isotropy regularization: likelihood against the autodiff Jacobian, conditioning, and what training does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import losses
from tf_detreg.regularizers import Context, NonIsotropy

DIM = 5


def shaken(seed=0, **options):
    """A regularizer whose flow is far from the identity."""
    penalty = NonIsotropy(DIM, depth=3, hidden=6, hidden_layers=2, dtype="float64", **options)
    rng = np.random.default_rng(seed)
    penalty.set_weights([rng.normal(size=w.shape) * 0.5 for w in penalty.weights])
    return penalty


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def batch(seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, 7), rng.normal(size=(7, DIM)), rng.normal(size=(3, DIM))


def context_of(labels, x, proxies=None, per_class=1):
    parts = {"labels": tf.constant(labels), "embeddings": tf.constant(x)}
    if proxies is not None:
        parts |= {"proxies": tf.constant(proxies), "proxy_labels": tf.repeat(tf.range(3), per_class)}
    return Context(**parts)


def surprises(penalty, z, q):
    """Negative log-likelihoods `(B,)`, with determinants from full Jacobians."""
    points = tf.constant(z)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        noise, _ = penalty.flow(points, tf.constant(q))
    jacobians = tape.batch_jacobian(noise, points, experimental_use_pfor=False).numpy()
    return np.sum(noise.numpy() ** 2, axis=1) / 2 - np.linalg.slogdet(jacobians)[1]


@pytest.mark.parametrize("exponential", [True, False])
def test_value_is_the_likelihood_under_the_flow(exponential):
    penalty = shaken(exponential=exponential)
    labels, x, proxies = batch()
    each = surprises(penalty, unit(x), unit(proxies)[labels])
    wanted = np.mean(np.exp(each)) if exponential else np.mean(each) / DIM
    np.testing.assert_allclose(penalty.penalty(context_of(labels, x, proxies)), wanted, rtol=1e-9)


def test_gradients_reach_samples_proxies_and_flow_and_are_right():
    penalty = shaken()
    labels, x, proxies = batch()
    x_t, p_t = tf.constant(x), tf.constant(proxies)
    with tf.GradientTape() as tape:
        tape.watch([x_t, p_t])
        value = penalty.penalty(
            Context(labels=tf.constant(labels), embeddings=x_t, proxies=p_t, proxy_labels=tf.range(3))
        )
    dx, dp, *dw = tape.gradient(value, [x_t, p_t, *penalty.trainable_variables])
    assert all(np.any(g.numpy()) for g in dw)
    rng, h = np.random.default_rng(2), 1e-6
    vx, vp = rng.normal(size=x.shape), rng.normal(size=proxies.shape)
    ahead, behind = (float(penalty.penalty(context_of(labels, x + d * vx, proxies + d * vp))) for d in (h, -h))
    slope = np.sum(dx.numpy() * vx) + np.sum(dp.numpy() * vp)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5)


def test_with_several_proxies_the_nearest_counts_and_without_any_the_class_mean():
    penalty = shaken()
    labels, x, proxies = batch()
    once = penalty.penalty(context_of(labels, x, proxies))
    pairs = np.stack([proxies, -proxies], axis=1)
    nearest = np.sum(unit(x) * unit(proxies)[labels], axis=1) > 0
    assert nearest.any() and not nearest.all()
    several = penalty.penalty(context_of(labels, x, pairs.reshape(6, DIM), per_class=2))
    own = np.where(nearest[:, None], proxies[labels], -proxies[labels])
    each = surprises(penalty, unit(x), unit(own))
    np.testing.assert_allclose(several, np.mean(np.exp(each)), rtol=1e-9)
    assert float(several) != float(once)
    means = np.array([unit(x)[labels == c].sum(axis=0) for c in range(3)])
    np.testing.assert_allclose(
        penalty.penalty(context_of(labels, x)), penalty.penalty(context_of(labels, x, means)), rtol=1e-9
    )


def test_training_lets_proxies_explain_their_samples():
    """Likelihood of samples under their own proxies becomes better than under other classes' proxies."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(3)
    proxies = unit(rng.normal(size=(3, DIM)))
    labels = np.repeat(np.arange(3), 10)
    x = unit(proxies[labels] + 0.1 * rng.normal(size=(30, DIM)))
    penalty = NonIsotropy(DIM, depth=2, hidden=16, exponential=False, dtype="float64")
    optimizer = keras.optimizers.Adam(0.02)
    right, wrong = context_of(labels, x, proxies), context_of((labels + 1) % 3, x, proxies)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = penalty.penalty(right)
        variables = penalty.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    values = [float(step()) for _ in range(150)]
    assert values[-1] < values[0] - 0.5
    assert float(penalty.penalty(wrong)) > values[-1] + 0.5


@pytest.mark.parametrize("size", [1, 4])
def test_degenerate_batches_are_finite(size):
    penalty = NonIsotropy(DIM, depth=2, hidden=4)
    for x in (np.zeros((size, DIM)), np.ones((size, DIM))):
        points = tf.constant(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = penalty.penalty(Context(labels=tf.zeros(size, tf.int32), embeddings=points))
        assert np.isfinite(value) and np.isfinite(tape.gradient(value, points)).all()


def test_a_wild_flow_does_not_overflow():
    penalty = shaken(scale_bound=50.0)
    penalty.set_weights([20 * w for w in penalty.get_weights()])
    labels, x, proxies = batch()
    assert np.isfinite(float(penalty.penalty(context_of(labels, x, proxies))))


def test_configuration_and_weights_survive():
    penalty = shaken(weight=0.3)
    copy = NonIsotropy.from_config(penalty.get_config())
    assert copy.get_config() == penalty.get_config() and copy.weight == 0.3
    copy.set_weights(penalty.get_weights())
    context = context_of(*batch())
    np.testing.assert_array_equal(copy.penalty(context), penalty.penalty(context))


@pytest.mark.parametrize("wrong", [{"dim": 1}, {"depth": 0}, {"hidden": 0}, {"hidden_layers": -1}, {"scale_bound": 0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f"^`{next(iter(wrong))}` must be"):
        NonIsotropy(**{"dim": 4, **wrong})


def test_wrong_size_is_named():
    with pytest.raises(ValueError, match="dim=5"):
        NonIsotropy(DIM, depth=1).penalty(context_of([0], np.ones((1, 3))))


def test_the_defaults_are_the_authors_settings():
    """Ten couplings (five blocks of two), networks of seven hidden layers, and 1/0.01 times Proxy-Anchor's factor."""
    penalty = NonIsotropy(dim=16)
    assert (penalty.weight, penalty.scale_bound, len(penalty.nets)) == (100.0, 2.0, 10)
    widths = [layer.units for layer in penalty.nets[0].stack]
    assert widths == [128] * 7 + [16]


def test_at_its_default_weight_it_is_felt_beside_a_metric_loss():
    """A weight of 0.01 left it 10,000 times too small: as good as switched off."""
    keras.utils.set_random_seed(0)
    loss, penalty = losses.ProxyAnchor(10, dim=16), NonIsotropy(dim=16)
    labels, x = tf.range(30) % 10, tf.random.normal((30, 16))
    metric = loss(labels, x)
    context = Context(labels=labels, embeddings=x, proxies=loss.proxies.value, proxy_labels=loss.proxy_labels)
    assert float(penalty.weight * penalty.penalty(context)) > float(metric)


@pytest.mark.parametrize(("clipnorm", "stalls"), [(None, True), (1.0, False)])
def test_a_sample_without_explanation_stalls_adam_unless_gradients_are_clipped(clipnorm, stalls):
    """One batch with `ℓ` near 14 in otherwise plain training: its gradient stays in Adam's mean of squares."""
    keras.utils.set_random_seed(0)
    loss, penalty = losses.ProxyAnchor(3, dim=DIM), NonIsotropy(DIM, depth=1, hidden=2, hidden_layers=0, weight=1.0)
    rng = np.random.default_rng(4)
    labels = tf.constant(rng.integers(0, 3, 30), tf.int32)
    inputs = tf.constant(np.eye(3)[labels] + rng.normal(size=(30, 3)), tf.float32)
    weights = tf.Variable(rng.normal(size=(3, DIM)), dtype=tf.float32)
    optimizer = keras.optimizers.Adam(0.01, clipnorm=clipnorm)
    optimizer.build([weights])
    loss(labels, tf.matmul(inputs, weights))  # makes the proxies

    @tf.function
    def update(penalized):
        with tf.GradientTape() as tape:
            x = tf.matmul(inputs, weights)
            value = loss(labels, x)
            context = Context(labels=labels, embeddings=x, proxies=loss.proxies.value, proxy_labels=loss.proxy_labels)
            objective = value + penalty.penalty(context) * penalized
        optimizer.apply_gradients([(tape.gradient(objective, weights), weights)])

    def step(shift):
        penalty.nets[0].stack[-1].bias.assign(np.r_[np.full(3, shift), np.zeros(3)])
        update(tf.constant(float(shift != 0)))

    for shift in [0.0] * 5 + [3.0]:
        step(shift)
    for _ in range(120):
        step(0.0)  # until the momentum of that one step is spent
    middle = weights.numpy()
    for _ in range(40):
        step(0.0)
    moved = np.abs(weights.numpy() - middle).max()
    assert moved < 1e-4 if stalls else moved > 1e-2


def test_above_the_knee_the_exponential_continues_as_its_tangent():
    """`e^20 (ℓ - 19)` for ℓ above 20: finite, and with a finite gradient, however unlikely a sample is."""
    penalty = NonIsotropy(DIM, depth=1, hidden=2, hidden_layers=0, dtype="float64")
    labels, x, proxies = batch()
    for shift in (5.0, 100.0, 1e6):
        penalty.nets[0].stack[-1].bias.assign(np.r_[np.full(3, shift), np.zeros(3)])
        each = surprises(penalty, unit(x), unit(proxies)[labels])
        assert (each > 20).any() or shift == 5.0
        wanted = np.mean(np.where(each > 20, np.exp(20.0) * (each - 19), np.exp(np.minimum(each, 20))))
        with tf.GradientTape() as tape:
            value = penalty.penalty(context_of(labels, x, proxies))
        np.testing.assert_allclose(value, wanted, rtol=1e-9)
        assert all(np.isfinite(slope).all() for slope in tape.gradient(value, penalty.trainable_variables))

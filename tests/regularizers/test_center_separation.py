"""Every center-separation regularizer: the formula, its gradient, its known optimum, its limits."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import regularizers as r
from tf_detreg.regularizers import Context


def pairs(c):
    return [(i, j) for i in range(len(c)) for j in range(len(c)) if i != j]


def distances(c):
    return np.array([np.linalg.norm(c[i] - c[j]) for i, j in pairs(c)])


def cosines(c):
    return np.array([c[i] @ c[j] for i, j in pairs(c)])


def energy(c, s, u=None):
    u = distances(c) if u is None else u
    return np.mean(u**-s) if s else np.mean(np.log(1 / u))


def half_energy(c, s):
    opposite = np.array([np.linalg.norm(c[i] + c[j]) for i, j in pairs(c)])
    return (energy(c, s) + energy(c, s, opposite)) / 2


def log_exp_mean(c, t):
    return np.log(np.mean(np.exp(t * cosines(c)))) / t if t else np.mean(cosines(c))


def power_mean(c, p):
    return np.mean(distances(c) ** p) ** (1 / p) if p else np.exp(np.mean(np.log(distances(c))))


def regular_face(c):
    return np.mean([max(c[i] @ c[j] for j in range(len(c)) if j != i) for i in range(len(c))])


CASES = {
    "energy-0": (lambda **k: r.HypersphericalEnergy(0, **k), lambda c: energy(c, 0)),
    "energy-1": (lambda **k: r.HypersphericalEnergy(**k), lambda c: energy(c, 1)),
    "energy-2": (lambda **k: r.HypersphericalEnergy(2, **k), lambda c: energy(c, 2)),
    "energy-angular-0": (
        lambda **k: r.HypersphericalEnergy(0, angular=True, **k),
        lambda c: energy(c, 0, np.arccos(cosines(c))),
    ),
    "energy-angular-2": (
        lambda **k: r.HypersphericalEnergy(2, angular=True, **k),
        lambda c: energy(c, 2, np.arccos(cosines(c))),
    ),
    "energy-half": (lambda **k: r.HypersphericalEnergy(1, half=True, **k), lambda c: half_energy(c, 1)),
    "log-exp-mean": (lambda **k: r.LogExpMean(**k), lambda c: log_exp_mean(c, 1)),
    "log-exp-mean-0": (lambda **k: r.LogExpMean(0, **k), lambda c: log_exp_mean(c, 0)),
    "log-exp-mean-20": (lambda **k: r.LogExpMean(20, **k), lambda c: log_exp_mean(c, 20)),
    "power-mean": (lambda **k: r.PowerMean(**k), lambda c: -power_mean(c, -1)),
    "power-mean-0": (lambda **k: r.PowerMean(0, **k), lambda c: -power_mean(c, 0)),
    "power-mean-7": (lambda **k: r.PowerMean(-7, **k), lambda c: -power_mean(c, -7)),
    "power-mean+1": (lambda **k: r.PowerMean(1, **k), lambda c: -power_mean(c, 1)),
    "uniformity": (lambda **k: r.Uniformity(**k), lambda c: np.log(np.mean(np.exp(-2 * distances(c) ** 2)))),
    "uniform-loss": (lambda **k: r.UniformLoss(**k), lambda c: np.mean(1 / (distances(c) + 1))),
    "regular-face": (lambda **k: r.RegularFace(**k), regular_face),
}
every_case = pytest.mark.parametrize("make, formula", CASES.values(), ids=CASES)


def penalty_and_gradient(regularizer, proxies, **context):
    proxies = tf.convert_to_tensor(proxies)
    with tf.GradientTape() as tape:
        tape.watch(proxies)
        value = regularizer.penalty(Context(proxies=proxies, **context))
    return value.numpy(), tape.gradient(value, proxies).numpy()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def simplex(classes, dim):
    points = np.eye(classes) - 1 / classes
    basis = np.linalg.svd(points)[2][: classes - 1]
    corners = np.zeros((classes, dim))
    corners[:, : classes - 1] = unit(points @ basis.T)
    return corners


@every_case
def test_value_and_gradient_follow_the_formula(make, formula):
    rng = np.random.default_rng(0)
    proxies = rng.normal(size=(6, 4))
    value, gradient = penalty_and_gradient(make(dtype="float64"), proxies)
    np.testing.assert_allclose(value, formula(unit(proxies)), rtol=1e-9)
    for _ in range(3):
        v, h = rng.normal(size=proxies.shape), 1e-6
        slope = (formula(unit(proxies + h * v)) - formula(unit(proxies - h * v))) / (2 * h)
        np.testing.assert_allclose(np.sum(gradient * v), slope, rtol=1e-5, atol=1e-7)


# Opposite points also repel in the half-space energy, so its optimum is another one; the mean cosine is minimal for
# every set of centers that sums to zero.
AT_SIMPLEX = {name: case for name, case in CASES.items() if name != "energy-half"}


@pytest.mark.parametrize("make, formula", AT_SIMPLEX.values(), ids=AT_SIMPLEX)
def test_the_regular_simplex_is_the_optimum(make, formula):
    corners = simplex(5, 6)
    np.testing.assert_allclose(cosines(corners), -1 / 4, atol=1e-12)
    value, gradient = penalty_and_gradient(make(dtype="float64"), corners)
    if formula is not regular_face:
        np.testing.assert_allclose(gradient, 0, atol=1e-9)
    rng = np.random.default_rng(1)
    for size in (1e-3, 0.1, 1.0, 10.0):
        for _ in range(5):
            moved = penalty_and_gradient(make(dtype="float64"), corners + size * rng.normal(size=corners.shape))[0]
            assert moved >= value - 1e-12


@pytest.mark.parametrize("name", ["energy-0", "energy-1", "energy-angular-2", "power-mean-7", "log-exp-mean-20"])
def test_descent_finds_the_simplex(name):
    make, _ = CASES[name]
    points = tf.Variable(np.random.default_rng(2).normal(size=(4, 3)))
    optimizer, regularizer = keras.optimizers.Adam(0.05), make(dtype="float64")

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = regularizer.penalty(Context(proxies=tf.convert_to_tensor(points)))
        optimizer.apply([tape.gradient(value, points)], [points])

    for _ in range(400):
        step()
    np.testing.assert_allclose(cosines(unit(points.numpy())), -1 / 3, atol=2e-3)


def value(regularizer, proxies):
    return float(regularizer.penalty(Context(proxies=tf.constant(proxies))))


def test_regular_face_equals_pytorch_metric_learning():
    with np.load(Path(__file__).parents[1] / "data" / "pml_proxy_golden.npz") as golden:
        proxies, wanted, slope = (golden[f"RegularFace/{part}"] for part in ("proxies", "value", "dp"))
    found, gradient = penalty_and_gradient(r.RegularFace(dtype="float64"), proxies)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)


def test_power_means_meet_potential_energy_and_their_limits():
    proxies = np.random.default_rng(3).normal(size=(7, 5))
    d = distances(unit(proxies))

    def mean(p):
        return -value(r.PowerMean(p, dtype="float64"), proxies)

    for s in (0.5, 1, 2, 3):
        energy_s = value(r.HypersphericalEnergy(s, dtype="float64"), proxies)
        np.testing.assert_allclose(mean(-s), energy_s ** (-1 / s), rtol=1e-10)
    logarithmic = np.exp(-value(r.HypersphericalEnergy(0, dtype="float64"), proxies))
    np.testing.assert_allclose(mean(0), logarithmic, rtol=1e-10)
    gaps = [abs(mean(p) - logarithmic) for p in (-0.1, -0.01, -0.001)]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
    np.testing.assert_allclose(mean(1), d.mean(), rtol=1e-10)
    np.testing.assert_allclose(mean(-3000), d.min(), rtol=2e-3)
    np.testing.assert_allclose(mean(3000), d.max(), rtol=2e-3)
    assert mean(-2) < mean(-1) < mean(0) < mean(1)


def test_log_exp_means_run_from_the_mean_to_the_maximum():
    proxies = np.random.default_rng(4).normal(size=(7, 5))
    c = cosines(unit(proxies))

    def mean(t):
        return value(r.LogExpMean(t, dtype="float64"), proxies)

    np.testing.assert_allclose(mean(1e-6), c.mean(), atol=1e-6)
    np.testing.assert_allclose(mean(0), c.mean(), atol=1e-12)
    np.testing.assert_allclose(mean(5000), c.max(), atol=1e-3)
    uniformity = value(r.Uniformity(2, dtype="float64"), proxies)
    np.testing.assert_allclose(uniformity, 2 * 2 * (mean(4) - 1), rtol=1e-10)


@every_case
def test_degenerate_centers_are_finite(make, formula):
    corners = np.eye(3, 4, dtype="float32")
    sets = [
        np.ones((3, 4)),
        np.zeros((3, 4)),
        np.concatenate([corners, -corners]),
        np.concatenate([corners, corners]),
        np.ones((1, 4)),
        1e-20 * corners,
    ]
    for proxies in sets:
        for result in penalty_and_gradient(make(), proxies.astype("float32")):
            assert np.isfinite(result).all()


@every_case
def test_several_proxies_of_a_class_do_not_repel(make, formula):
    proxies = np.random.default_rng(5).normal(size=(4, 5))
    once = penalty_and_gradient(make(dtype="float64"), proxies)[0]
    twice = penalty_and_gradient(
        make(dtype="float64"), np.repeat(proxies, 2, axis=0), proxy_labels=tf.repeat(tf.range(4), 2)
    )[0]
    np.testing.assert_allclose(twice, once, rtol=1e-9)


@every_case
def test_without_proxies_class_means_take_their_place(make, formula):
    rng = np.random.default_rng(6)
    embeddings, labels = rng.normal(size=(9, 5)), np.repeat([4, 1, 8], 3)
    found = make(dtype="float64").penalty(Context(labels=tf.constant(labels), embeddings=tf.constant(embeddings)))
    means = np.array([embeddings[labels == label].mean(axis=0) for label in (1, 4, 8)])
    np.testing.assert_allclose(found, formula(unit(means)), rtol=1e-9)
    with pytest.raises(ValueError, match="embeddings"):
        make().penalty(Context(labels=tf.constant(labels)))


@every_case
def test_half_precision_vectors_are_computed_in_single(make, formula):
    """A class whose embeddings cancel out has a mean of length 0, which half precision turns into NaN."""
    halves = tf.constant([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], tf.float16)
    context = Context(labels=tf.constant([0, 0, 1]), embeddings=halves)
    assert np.isfinite(float(make().penalty(context)))
    assert np.isfinite(value(make(), tf.constant([[0.0, 0.0], [0.0, 1.0]], tf.float16)))


@every_case
def test_one_class_has_nothing_to_separate(make, formula):
    context = Context(labels=tf.zeros(3, tf.int32), embeddings=tf.eye(3))
    assert float(make().penalty(context)) == 0


def test_random_rows_estimate_the_mean_over_all_pairs():
    proxies = np.random.default_rng(7).normal(size=(40, 5))
    whole = value(r.HypersphericalEnergy(1, dtype="float64"), proxies)
    keras.utils.set_random_seed(0)
    parts = [value(r.HypersphericalEnergy(1, max_rows=5, dtype="float64"), proxies) for _ in range(300)]
    assert np.std(parts) > 0
    np.testing.assert_allclose(np.mean(parts), whole, rtol=0.01)


@every_case
def test_configuration_survives(make, formula):
    regularizer = make(weight=0.3, max_rows=9)
    copy = type(regularizer).from_config(regularizer.get_config())
    assert copy.get_config() == regularizer.get_config() and copy.weight == 0.3
    proxies = np.random.default_rng(8).normal(size=(5, 3)).astype("float32")
    assert value(copy, proxies) == value(regularizer, proxies)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: r.HypersphericalEnergy(-1), "power"),
        (lambda: r.LogExpMean(-1), "temperature"),
        (lambda: r.Uniformity(0), "temperature"),
        (lambda: r.Uniformity(float("nan")), "temperature"),
        (lambda: r.PowerMean("2"), "power"),
        (lambda: r.RegularFace(max_rows=0), "max_rows"),
        (lambda: r.RegularFace(max_rows=2.5), "max_rows"),
        (lambda: r.RegularFace("much"), "`weight` .* received 'much'"),
        (lambda: r.RegularFace(float("nan")), "`weight` .* received nan"),
    ],
)
def test_wrong_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()

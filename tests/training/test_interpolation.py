import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg.training import Interpolation


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return tf.constant(rng.normal(size=(12, 5)), tf.float32), tf.constant(np.repeat([3, 1, 4, 9], [4, 4, 3, 1]))


def brute_force_mates(z, labels, count):
    """For each row the `count` nearest other rows of its class."""
    mates = []
    for i in range(len(z)):
        rows = [j for j in range(len(z)) if j != i and labels[j] == labels[i]]
        mates.append(sorted(rows, key=lambda j: np.sum((z[i] - z[j]) ** 2))[:count])
    return mates


def test_fixed_epsilon_steps_towards_the_nearest_class_mate(batch):
    z, labels = batch
    mixed = Interpolation(epsilon=0.3)(z, labels).numpy()
    for i, mates in enumerate(brute_force_mates(z.numpy(), labels.numpy(), 1)):
        expected = z[i] + 0.3 * (z[mates[0]] - z[i]) if mates else z[i]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


def test_draws_lie_between_a_sample_and_one_of_its_neighbors(batch):
    z, labels = batch
    layer = Interpolation(epsilon=0.5, neighbors=2, random=True, seed=0)
    mates = brute_force_mates(z.numpy(), labels.numpy(), 2)
    used = set()
    for _ in range(30):
        mixed = layer(z, labels).numpy()
        np.testing.assert_array_equal(mixed[-1], z[-1])  # the lone sample of class 9
        for i, rows in enumerate(mates[:-1]):
            steps = [np.linalg.norm(mixed[i] - z[i]) / np.linalg.norm(z[j] - z[i]) for j in rows]
            fits = [
                np.allclose(z[i] + s * (z[j] - z[i]), mixed[i], atol=1e-5) for s, j in zip(steps, rows, strict=True)
            ]
            assert sum(fits) == 1
            assert 0 < steps[fits.index(True)] <= 0.5 + 1e-6
            used.add((i, fits.index(True)))
    assert len(used) == 2 * 11  # each neighbor of each sample with mates had its turn


def test_a_pool_with_an_offset_is_the_same_as_one_batch(batch):
    z, labels = batch
    layer = Interpolation(0.4)
    whole = layer(z, labels)
    parts = [layer(z[a:b], labels[a:b], z, labels, offset=a) for a, b in ((0, 5), (5, 12))]
    np.testing.assert_allclose(tf.concat(parts, 0), whole, atol=1e-6)


def test_gradients_reach_both_ends(batch):
    z, labels = batch
    with tf.GradientTape() as tape:
        tape.watch(z)
        total = tf.reduce_sum(Interpolation(0.4)(z, labels))
    gradient = tape.gradient(total, z).numpy()
    counts = np.zeros(12)
    for mates in brute_force_mates(z.numpy(), labels.numpy(), 1):
        counts[mates] += 1
    expected = np.where(np.arange(12) == 11, 1.0, 0.6 + 0.4 * counts)
    np.testing.assert_allclose(gradient, np.tile(expected[:, None], 5), atol=1e-6)


def test_config_round_trip():
    layer = Interpolation(0.2, neighbors=3, random=True, seed=5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("arguments", [{"epsilon": 0}, {"epsilon": 1.1}, {"epsilon": True}, {"neighbors": 0}])
def test_arguments_out_of_range_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Interpolation(**arguments)

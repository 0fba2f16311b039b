"""The Jacobian-vector penalty against full Jacobians."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.heads.table import features, jacobian, make
from tf_detreg.regularizers import Context, Lipschitz, lipschitz


@pytest.mark.parametrize("name", ["real_nvp", "nice", "glow", "ffjord"])
def test_head_penalty_is_the_mean_squared_frobenius_norm(name):
    head = make(name, dtype="float32")
    z = head.project(features(2, dtype="float32"))
    expected = np.sum(jacobian(lambda z: head.flow(z)[0], z) ** 2) / 2 / head.dim
    estimate = Lipschitz(seed=0).penalty(Context(head=head, z=tf.repeat(z, 20000, axis=0)))
    np.testing.assert_allclose(estimate, expected, rtol=0.03)


@pytest.mark.parametrize("part", ["backbone", "embedder"])
def test_other_parts_inside_a_graph_with_gradients(part):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    hidden = keras.layers.Conv2D(4, 3, activation="tanh")(inputs)
    backbone = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(hidden))
    head = make("real_nvp", width=4, dtype="float32")
    images = tf.random.normal((3, 6, 6, 3))
    regularizer = Lipschitz(part=part, seed=0)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            value = regularizer.penalty(Context(images=images, backbone=backbone, head=head))
        return value, tape.gradient(value, [v.value for v in backbone.trainable_variables])

    value, (kernel, _) = gradients()
    assert float(value) > 0 and np.abs(kernel).max() > 0
    assert float(gradients()[0]) != float(value)  # New directions in each step.


def test_pixels_may_be_whole_numbers():
    backbone = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten()])
    images = np.random.default_rng(0).integers(0, 255, (512, 2, 2, 3), "uint8")
    penalty = Lipschitz(part="backbone", seed=0).penalty(Context(images=images, backbone=backbone))
    assert float(penalty) == pytest.approx(1, abs=0.1)


def test_refusals_config_and_example():
    with pytest.raises(ValueError, match=r"`part` must be one of .*'tail'"):
        Lipschitz(part="tail")
    with pytest.raises(ValueError, match="Lipschitz needs z"):
        Lipschitz().penalty(Context(head=make("nice")))
    config = Lipschitz(0.3, part="backbone", seed=4).get_config()
    assert Lipschitz.from_config(config).get_config() == config
    result = doctest.testmod(lipschitz, extraglobs={"tf": tf})
    assert result.attempted and not result.failed

"""A pair loss in a plain Keras model under a distribution strategy: the mean of what the replicas see by themselves."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.losses import mirrored_keras


def test_replicas_average_the_losses_of_their_own_rows(tmp_path):
    output = tmp_path / "replicas.npz"
    done = subprocess.run([sys.executable, mirrored_keras.__file__, str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, model, (x, labels) = np.load(output), mirrored_keras.build(), mirrored_keras.batch()
    shares = np.split(np.arange(len(x)), 2)
    with tf.GradientTape() as tape:
        each = [model.loss(labels[rows], model(x[rows])) for rows in shares]
        mean = tf.add_n(each) / 2
    assert float(found["loss"]) == pytest.approx(float(mean), rel=1e-5)
    variables = model.trainable_variables
    for i, (variable, slope) in enumerate(zip(variables, tape.gradient(mean, variables), strict=True)):
        np.testing.assert_allclose(found[str(i)], variable - mirrored_keras.RATE * slope, atol=1e-6)

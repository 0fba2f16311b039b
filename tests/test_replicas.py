"""Two replicas of one machine do as one process does: a head, a loss in plain Keras, a whole training."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import replicas
from tests.heads import mirrored_glow
from tests.losses import mirrored_keras
from tests.training import distributed_worker
from tests.training.test_distributed import same
from tf_detreg.training.distribution import open_place


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder of what two replicas wrote."""
    folder = tmp_path_factory.mktemp("replicas")
    done = subprocess.run([sys.executable, "-m", "tests.replicas", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_glows_actnorms_are_set_from_the_global_batch(found):
    pair = mirrored_glow.build()
    expected = [pair(tf.constant(mirrored_glow.batch(seed)), training=True).numpy() for seed in (1, 2)]
    assert float(pair.main.initialized.value) == float(pair.rival.initialized.value) == 1.0
    assert np.abs(pair.main.norm_shift[0].numpy()).max() > 0.1
    with np.load(found / "glow.npz") as two:
        for name, embeddings in zip(("first", "second"), expected, strict=True):
            np.testing.assert_allclose(two[name], embeddings, atol=1e-5)
        for i, variable in enumerate(pair.weights):
            for replica in range(2):
                np.testing.assert_allclose(two[f"{replica}/{i}"], variable.numpy(), atol=1e-5, err_msg=variable.path)


def test_a_pair_loss_in_plain_keras_is_the_mean_of_what_replicas_see_by_themselves(found):
    two, model, (x, labels) = np.load(found / "keras.npz"), mirrored_keras.build(), mirrored_keras.batch()
    shares = np.split(np.arange(len(x)), 2)
    with tf.GradientTape() as tape:
        each = [model.loss(labels[rows], model(x[rows])) for rows in shares]
        mean = tf.add_n(each) / 2
    assert float(two["loss"]) == pytest.approx(float(mean), rel=1e-5)
    variables = model.trainable_variables
    for i, (variable, slope) in enumerate(zip(variables, tape.gradient(mean, variables), strict=True)):
        np.testing.assert_allclose(two[str(i)], variable - mirrored_keras.RATE * slope, atol=1e-6)


def test_a_training_equals_that_of_one_process(found, tmp_path):
    distributed_worker.equal(open_place(""), tmp_path / "one.npz", replicas.ROWS)
    same(tmp_path / "one.npz", found / "run.npz")

"""Glow's first batch, wherever it arrives: on one replica or two, in a pair of heads, before and after saving."""

import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from tests.heads import mirrored_glow
from tests.heads.table import embedder, features, make
from tf_detreg import heads


def test_two_replicas_set_the_actnorms_from_the_global_batch_as_one_process_does(tmp_path):
    path = tmp_path / "found.npz"
    command = [sys.executable, "-m", "tests.heads.mirrored_glow", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pair = mirrored_glow.build()
    expected = [pair(tf.constant(mirrored_glow.batch(seed)), training=True).numpy() for seed in (1, 2)]
    assert float(pair.main.initialized.value) == float(pair.rival.initialized.value) == 1.0
    assert np.abs(pair.main.norm_shift[0].numpy()).max() > 0.1
    with np.load(path) as found:
        for name, embeddings in zip(("first", "second"), expected, strict=True):
            np.testing.assert_allclose(found[name], embeddings, atol=1e-5)
        for i, variable in enumerate(pair.weights):
            for replica in range(2):
                np.testing.assert_allclose(found[f"{replica}/{i}"], variable.numpy(), atol=1e-5, err_msg=variable.path)


def test_both_heads_of_a_pair_are_set_once():
    pair = heads.Dueling(make("glow", grow=0.0, dtype="float32", penalty=0.1))
    x = features(32, dtype="float32")
    pair(x)
    assert [float(head.initialized.value) for head in (pair.main, pair.rival)] == [0.0, 0.0]
    pair(x, training=True)
    kept = [head.norm_shift[0].numpy() for head in (pair.main, pair.rival)]
    assert all(np.abs(shift).max() > 0 for shift in kept)
    pair(x + 3.0, training=True)
    np.testing.assert_array_equal([head.norm_shift[0].numpy() for head in (pair.main, pair.rival)], kept)


def test_a_loaded_model_is_not_set_again(tmp_path):
    head = make("glow", grow=0.0, dtype="float32")
    model = embedder(head)
    model(features(32, dtype="float32"), training=True)
    model.save(tmp_path / "glow.keras")
    loaded = keras.models.load_model(tmp_path / "glow.keras")
    before = [w.copy() for w in loaded.get_weights()]
    loaded(features(32, seed=5, dtype="float32") - 4.0, training=True)
    for old, new, saved in zip(before, loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old, saved)

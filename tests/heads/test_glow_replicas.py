"""Glow's first batch, in a pair of heads, before and after saving. Of two replicas see `tests/test_replicas.py`."""

import keras
import numpy as np

from tests.heads.table import embedder, features, make
from tf_detreg import heads


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

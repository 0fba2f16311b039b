"""The two branches pull in opposite directions, and only the first one shows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.heads.table import features, make
from tf_detreg import heads


def backbone_gradient(*layers):
    """Gradient of the layers' added losses with respect to a backbone's kernel."""
    backbone = keras.layers.Dense(8, kernel_initializer=keras.initializers.RandomNormal(seed=1), dtype="float64")
    x = features()
    with tf.GradientTape() as tape:
        hidden = backbone(x)
        for layer in layers:
            layer(hidden, training=True)
        loss = tf.add_n([loss for layer in layers for loss in layer.losses])
    return tape.gradient(loss, backbone.kernel.value).numpy()


def test_rival_gradient_reaches_the_backbone_with_the_opposite_sign():
    lowers, raises = (
        make("real_nvp", penalty=0.05, measure="shifted"),
        make("real_nvp", penalty=-0.05, measure="shifted"),
    )
    down, up = backbone_gradient(lowers), backbone_gradient(raises)
    assert np.abs(down).max() > 1e-6
    np.testing.assert_allclose(up, -down, atol=1e-15)
    # The same weights in both branches: the pair leaves the backbone alone.
    np.testing.assert_allclose(backbone_gradient(heads.Dueling(lowers, raises)), 0, atol=1e-15)


def test_separate_weights_of_the_two_penalties():
    main, rival = make("real_nvp", penalty=0.05, measure="shifted"), make("nice", penalty=-0.2, measure="shifted")
    pair = heads.Dueling(main, rival)
    x = features()
    pair(x, training=True)
    regularity = [head.regularity(head.flow(head.project(x))[1]) for head in (main, rival)]
    np.testing.assert_allclose(sum(pair.losses), 0.05 * regularity[0] - 0.2 * regularity[1], atol=1e-12)


def test_training_the_penalties_drives_the_two_apart():
    keras.utils.set_random_seed(0)
    pair = heads.Dueling(heads.RealNVP(4, depth=2, hidden=16, penalty=1.0, measure="shifted"))
    model = keras.Sequential([keras.Input((8,)), pair])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x = features(16, dtype="float32").numpy()
    model.fit(x, np.zeros((16, 4), "float32"), epochs=30, batch_size=16, verbose=0)
    regularity = [float(head.regularity(head.flow(head.project(x))[1])) for head in (pair.main, pair.rival)]
    assert regularity[0] < -0.05 and regularity[1] > 0.05


def test_inference_runs_the_main_head_alone(monkeypatch):
    main, rival = make("real_nvp", penalty=0.1), make("nice", penalty=-0.1)
    pair = heads.Dueling(main, rival)
    monkeypatch.setattr(rival, "call", lambda *args, **kwargs: pytest.fail("the rival ran"))
    x = features()
    np.testing.assert_array_equal(pair(x), main(x))
    assert pair.losses == []


def test_default_rival_mirrors_the_main_head():
    pair = heads.Dueling(heads.RealNVP(4, depth=2, hidden=8, penalty=0.05, measure="shifted"))
    config, mirrored = pair.main.get_config(), pair.rival.get_config()
    assert mirrored.pop("penalty") == -config.pop("penalty")
    assert mirrored.pop("name") != config.pop("name")
    assert mirrored == config


def test_a_rival_may_do_without_a_penalty_and_heads_without_a_jacobian_may_pair():
    assert heads.Dueling(heads.RealNVP(4), heads.RealNVP(4, penalty=0.0)).rival.penalty == 0
    pair = heads.Dueling(heads.Linear(4))
    assert type(pair.rival) is heads.Linear and pair.rival.penalty == 0
    assert pair(features(width=8), training=True).shape == (6, 4) and not pair.losses


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`rival` must have a penalty of 0 or below.*0\.1"):
        heads.Dueling(heads.RealNVP(4), heads.RealNVP(4, penalty=0.1))
    with pytest.raises(ValueError, match="`main` must be a head"):
        heads.Dueling(keras.layers.Dense(3))

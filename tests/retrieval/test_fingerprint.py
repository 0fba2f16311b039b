"""What identifies a model."""

import pytest

from tf_detreg import retrieval


def test_fingerprint_changes_with_the_weights():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    before = retrieval.fingerprint(model)
    model.layers[0].bias.assign([0.0, 1e-3])
    assert retrieval.fingerprint(model) != before


def test_the_fingerprint_of_a_metric_model_is_its_embedders():
    import keras

    from tf_detreg import heads, losses, training

    embedder = keras.Sequential([keras.Input((3,)), heads.Linear(2)])
    model = training.MetricModel(embedder, losses.ProxyAnchor(2), rival=heads.Linear(2))
    assert retrieval.fingerprint(model) == retrieval.fingerprint(embedder)

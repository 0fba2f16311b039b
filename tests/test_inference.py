"""A model's graph is traced once, whoever runs it and however often, and goes with the model."""

import doctest
import gc
import weakref

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import datasets, heads, inference
from tf_detreg.training import embed


def counted(*layers):
    """A model over digits, and a list that grows by one entry each time its Python code runs."""
    runs = []

    def note(images):
        runs.append(images.shape)
        return images

    note = keras.layers.Lambda(note, output_shape=lambda shape: shape)
    images = keras.Input((8, 8, 3))
    model = keras.Sequential([images, note, keras.layers.Flatten(), *layers])
    runs.clear()
    return model, runs


def test_embedding_again_and_again_traces_once():
    model, runs = counted(heads.RealNVP(4, depth=2, hidden=4))
    images = datasets.digits().validation.subset(np.arange(50))
    every = [embed(model, images, batch_size=16).embeddings for _ in range(6)]  # each with a last batch of 2
    assert len(runs) == 1
    pixels = np.concatenate([batch for batch, _ in images.indexed()])
    np.testing.assert_allclose(every[-1], model(pixels), atol=1e-6)
    runs.clear()
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert np.abs(embed(model, images).embeddings - every[-1]).max() > 1e-3
    assert not runs


def test_the_features_of_all_parts_trace_once(tmp_path):
    model, runs = counted()
    datasets.cache_features(model, datasets.digits(), tmp_path, batch_size=100)
    assert len(runs) == 1


def test_other_variables_are_another_graph():
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), dense])
    x = tf.ones((1, 3))
    before = inference.traced(model)(x)
    dense.enable_lora(1)
    dense.lora_kernel_b.assign(tf.ones((1, 2)))
    after = inference.traced(model)(x)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(x), atol=1e-6)


def test_a_graph_does_not_keep_its_model():
    model = keras.Sequential([keras.Input((3,)), heads.Linear(2)])
    inference.traced(model)(tf.ones((1, 3)))
    gone = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


def test_the_example():
    found = doctest.testmod(inference, extraglobs={"tf": tf})
    assert found.attempted and not found.failed

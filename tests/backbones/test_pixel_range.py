"""Images in 0..1 train to next to nothing: told once, wherever they come in."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import backbones, heads, losses, training
from tf_detreg.backbones.pixel_range import PixelRange

TOLD = "values from 0 to 255 are wanted"


def told(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return sum(TOLD in str(warning.message) for warning in seen)


def images(low, high):
    return np.random.default_rng(0).uniform(low, high, (8, 16, 16, 3)).astype(np.float32)


LABELS = np.repeat(np.arange(4), 2)


def embedder(backbone="small_cnn"):
    if backbone == "small_cnn":
        body = backbones.small_cnn(16, width=4, blocks=1)
    elif backbone == "built":
        body = backbones.build(keras.layers.Conv2D(4, 3), 16, scaling="imagenet")
    else:  # of the user's own making, with no layer of ours
        body = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
    return keras.Sequential([keras.Input((16, 16, 3)), body, heads.Linear(4)])


@pytest.mark.parametrize("source", ["arrays", "dataset"])
@pytest.mark.parametrize("backbone", ["small_cnn", "own"])
@pytest.mark.parametrize(("low", "high", "times"), [(0, 1, 1), (-1, 1, 1), (0, 255, 0)])
def test_metric_model(backbone, low, high, times, source):
    model = training.MetricModel(embedder(backbone), losses.SupCon())
    model.compile("sgd")
    data, options = (images(low, high), LABELS), {"batch_size": 4}
    if source == "dataset":
        data, options = (tf.data.Dataset.from_tensor_slices(data).batch(4),), {}
    assert told(lambda: model.fit(*data, epochs=2, verbose=0, **options)) == times
    assert told(lambda: model.embedder.predict(images(low, high), verbose=0)) == 0


@pytest.mark.parametrize("backbone", ["small_cnn", "built"])
def test_plain_fit_through_the_scaling_layer(backbone):
    for low, high, times in ((0, 1, 1), (0, 255, 0)):
        model = embedder(backbone)
        model.compile("sgd", loss=losses.SupCon())
        assert told(lambda: model.fit(images(low, high), LABELS, batch_size=4, epochs=2, verbose=0)) == times  # noqa: B023


def test_embed():
    class Scaled:
        """A set of one's own: `ImageSet` itself takes whole numbers alone."""

        labels, groups, name = LABELS, None, "scaled"

        def __init__(self, top):
            self.pixels = images(0, top)

        def __len__(self):
            return 8

        def indexed(self, batch_size):
            return tf.data.Dataset.from_tensor_slices((self.pixels, np.arange(8, dtype=np.int64))).batch(batch_size)

    model = embedder()
    assert told(lambda: training.embed(model, Scaled(1), 4)) == 1
    assert told(lambda: training.embed(model, Scaled(255), 4)) == 0


def test_black_images_decide_nothing():
    watch = PixelRange()
    assert told(lambda: watch(tf.zeros((2, 4, 4, 3)))) == 0 and not watch.decided
    assert told(lambda: watch(tf.zeros((0, 4, 4, 3)))) == 0 and not watch.decided
    assert told(lambda: watch(tf.ones((2, 7)))) == 0 and not watch.decided
    assert told(lambda: watch(tf.fill((1, 4, 4, 3), 0.5))) == 1
    assert told(lambda: watch(tf.fill((1, 4, 4, 3), 0.5))) == 0


def test_xla_is_left_to_who_asks_for_it():
    model = training.MetricModel(embedder(), losses.SupCon())
    model.compile("sgd", jit_compile=True)
    assert model.jit_compile
    assert told(lambda: model.fit(images(0, 1), LABELS, batch_size=8, verbose=0)) == 0


def test_an_export_holds_no_look_at_the_range(tmp_path):
    model = embedder()
    model(images(0, 1)[:1], training=False)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((None, 16, 16, 3)))
    assert not [op for op in function.graph.get_operations() if "PyFunc" in op.type]

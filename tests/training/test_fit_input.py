"""What is wrong with images or labels is told in a sentence, from inside `fit` as from a direct call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import backbones, heads, losses, training
from tf_detreg.export.inference import inference_model

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
LABELS = np.repeat(np.arange(4), 2)


def model(loss=None):
    images = keras.Input((8, 8, 3))
    made = training.MetricModel(
        keras.Model(images, heads.Linear(4)(keras.layers.Flatten()(images))), loss or losses.ProxyAnchor(num_classes=4)
    )
    made.compile("sgd")
    return made


def batches(*arrays):
    return tf.data.Dataset.from_tensors(arrays)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((IMAGES, np.array(list("aabbccdd"))), "`labels` must be integers .*received strings.*np.unique"),
        ((IMAGES, list("aabbccdd")), "`labels` must be integers .*received strings"),
        ((IMAGES, np.array([1, None] * 4, object)), "`labels` must be integers .*received dtype object"),
        ((IMAGES, [[0], [1, 2]] + [[3]] * 6), "one class number for each image; received a ragged list"),
        ((IMAGES, LABELS + 3), r"^`labels` must lie in 0 .. 3 \(num_classes=4\).*received: 3, 6\.$"),
        ((IMAGES, LABELS - 1), r"^`labels` must lie in 0 .. 3 .*received: -1, 2\.$"),
        ((batches(IMAGES, LABELS + 3),), r"^`labels` must lie in 0 .. 3 .*received: 3, 6\.$"),
        (
            (LABELS, IMAGES),
            r"^`images` must have shape \(batch, 8, 8, 3\); received \(8,\). images and labels are swapped",
        ),
        ((batches(LABELS, IMAGES),), r"`images` must have shape \(batch, 8, 8, 3\).*swapped: give \(images, labels\)"),
        ((IMAGES.reshape(8, -1), LABELS), r"^`images` must have shape \(batch, 8, 8, 3\); received \(8, 192\)\.$"),
        ((IMAGES, LABELS + 0.5), "`labels` must be integers .*received dtype float"),
        (
            (IMAGES, np.full((8, 4), 0.25, np.float32)),
            r"^`labels` must be class numbers, or one-hot.*received: 0.25, 0.25",
        ),
        ((IMAGES, np.stack([LABELS, LABELS], 1)), r"`labels` must have shape \(batch,\) or \(batch, 1\)"),
        ((batches(tf.RaggedTensor.from_tensor(IMAGES), LABELS),), "`images` must have one size .*Resize them"),
        (
            (batches(IMAGES, tf.ragged.constant([[0], [1, 2], [1], [1], [2], [2], [3], [3]])),),
            "`labels` must .*a RaggedTensor",
        ),
        ((IMAGES, None), "`labels` must be .*received none"),
    ],
)
def test_sentences(data, message):
    with pytest.raises(ValueError, match=message):
        model().fit(*data, verbose=0)


@pytest.mark.parametrize("make", [lambda: losses.ProxyAnchor(num_classes=4), losses.SupCon])
def test_one_hot_rows_are_class_numbers(make):
    keras.utils.set_random_seed(0)
    one_hot = np.eye(4, dtype=np.float32)[LABELS]
    assert float(losses.SupCon()(one_hot, IMAGES[:, 0, 0])) == float(losses.SupCon()(LABELS, IMAGES[:, 0, 0]))
    made = model(make())
    numbers = made.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert made.evaluate(IMAGES, one_hot, verbose=0, return_dict=True) == numbers
    assert made.evaluate(batches(IMAGES, one_hot), verbose=0, return_dict=True) == numbers
    assert np.isfinite(made.fit(IMAGES, one_hot, verbose=0).history["loss"][0])
    assert np.isfinite(made.fit(IMAGES, y=LABELS.tolist(), verbose=0).history["loss"][0])


def test_other_errors_of_the_graph_stay_what_they_are():
    class Failing(keras.layers.Layer):
        def call(self, x):
            with tf.control_dependencies([tf.debugging.assert_less(x, -1.0)]):
                return tf.identity(x)

    images = keras.Input((8, 8, 3))
    made = training.MetricModel(
        keras.Model(images, heads.Linear(4)(Failing()(keras.layers.Flatten()(images)))), losses.SupCon()
    )
    made.compile("sgd")
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        made.fit(IMAGES, LABELS, verbose=0)


def test_a_backbone_of_several_outputs_is_told():
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    with pytest.raises(ValueError, match=r"`backbone` must have one output; received \w+, which gives 2 outputs"):
        backbones.build(keras.Model(images, [flat, keras.layers.Dense(2)(flat)]), 8)


def test_a_subclassed_embedder_that_was_called_is_told_what_to_do():
    class Embedder(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = heads.Linear(4)

        def call(self, images):
            return self.head(tf.reshape(images, (-1, 192)))

    embedder = Embedder()
    embedder(IMAGES)
    with pytest.raises(ValueError, match=r"subclassed model.*keras.Model\(images, embedder\(images\)\)"):
        inference_model(embedder)
    with pytest.raises(ValueError, match="subclassed model"):
        training.MetricModel(embedder, losses.SupCon())

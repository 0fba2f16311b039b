"""What Keras asks of every loss: its own layer test and mixed precision. Files are in `tests/test_package.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

from tests.losses.table import DIM, ONE_A_CLASS

LAYERS = [row for row in ONE_A_CLASS if row.is_layer]
every_layer = pytest.mark.parametrize("row", LAYERS, ids=[row.name for row in LAYERS])


@every_layer
def test_keras_layer_test(row):
    built = row.build("float32")
    testing.TestCase().run_layer_test(
        row.loss,
        init_kwargs=row.options,
        input_shape={"labels_shape": (4,), "embeddings_shape": (4, DIM)},
        input_dtype={"labels_shape": "int32", "embeddings_shape": "float32"},
        expected_output_shape=(),
        expected_output_dtype="float32",
        expected_num_trainable_weights=len(built.trainable_weights),
        expected_num_non_trainable_weights=len(built.non_trainable_weights),
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=False,
        run_training_check=False,  # it passes one input; `test_fit_trains_and_stops_at_wrong_labels` trains
        run_mixed_precision_check=True,
    )


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_computes_in_float32_whatever_the_policy(row, policy):
    labels, x = row.batch()
    wanted = float(row.build("float32")(labels, x))
    given = row.build(policy)
    assert given(labels, x).dtype == tf.float32
    if policy != "float16":
        assert float(given(labels, x)) == pytest.approx(wanted, rel=1e-6)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = row.loss(**row.options)
        assert layer(labels, x.astype("float16")).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(before)
    assert {weight.dtype for weight in layer.weights} <= {"float32", "int32"}


@every_layer
def test_compile_refuses_it_and_says_where_it_belongs(row):
    """Keras would take any function, hand it labels as floats, and leave its weights as they are; one-hot rows too."""
    labels, x = row.batch()
    refuse_in_compile(row.build("float32"), x, labels)
    refuse_in_compile(row.build("float32"), x, keras.utils.to_categorical(labels))


def refuse_in_compile(loss, x, labels, **options):
    model = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
    model.compile("sgd", loss=loss, **options)
    with pytest.raises(ValueError, match=r"owns weights.*training\.MetricModel"):
        model.fit(x, labels, verbose=0)


def test_compile_refuses_it_inside_a_function_and_eagerly():
    (labels, x), loss = LAYERS[0].batch(), LAYERS[0].build("float32")
    refuse_in_compile(lambda labels, embeddings: loss(labels, embeddings), x, np.eye(labels.max() + 1)[labels])
    refuse_in_compile(loss, x, np.eye(labels.max() + 1)[labels], run_eagerly=True)


def test_a_model_that_holds_it_trains_it_in_its_compute_loss():
    class Model(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return self.proxies(y, y_pred)

    row = LAYERS[0]
    labels, x = row.batch()
    model = Model([keras.Input((DIM,)), keras.layers.Dense(DIM)])
    model.proxies = row.build("float32")
    before = [weight.numpy() for weight in model.trainable_variables]
    model.compile("sgd")
    model.fit(x, labels, verbose=0)
    for old, weight in zip(before, model.trainable_variables, strict=True):
        assert np.any(weight.numpy() != old), weight.path

"""A plain Keras model with a pair loss on two replicas; see `tests/replicas.py`."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import losses

ROWS, RATE = 16, 0.5


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 6)).astype("float32"), np.tile(np.arange(4), 4)


def build() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(RATE), loss=losses.Contrastive(), jit_compile=False)
    return model


def train(strategy: tf.distribute.Strategy, output: pathlib.Path) -> None:
    with strategy.scope():
        model = build()
    x, labels = batch()
    history = model.fit(x, labels, batch_size=ROWS, shuffle=False, verbose=0).history
    np.savez(output, loss=history["loss"][0], **{str(i): w for i, w in enumerate(model.get_weights())})

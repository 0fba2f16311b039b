"""Two replicas on one machine set Glow's ActNorms and write an .npz; see `tests/replicas.py`."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import heads

ROWS = 7  # Dealt to two replicas as 3 and 4.


def build() -> heads.Dueling:
    keras.utils.set_random_seed(0)
    pair = heads.Dueling(heads.Glow(4, depth=2, hidden=6, penalty=0.1, name="glow"))
    pair.build((None, 6))
    return pair


def batch(seed: int) -> np.ndarray:
    return 2.0 + np.random.default_rng(seed).standard_normal((ROWS, 6)).astype("float32")


def train(strategy: tf.distribute.Strategy, output: pathlib.Path) -> None:
    with strategy.scope():
        pair = build()

    @tf.function
    def step(shards):
        return strategy.run(lambda x: pair(x, training=True), args=(shards,))

    def train_on(rows):
        parts = [tf.constant(part) for part in np.split(rows, [ROWS // 2])]
        shards = strategy.experimental_distribute_values_from_function(lambda ctx: parts[ctx.replica_id_in_sync_group])
        embeddings = strategy.experimental_local_results(step(shards))
        return np.concatenate([part.numpy() for part in embeddings])

    found = {"first": train_on(batch(1)), "second": train_on(batch(2))}
    for i, variable in enumerate(pair.weights):
        for replica, value in enumerate(strategy.experimental_local_results(variable.value)):
            found[f"{replica}/{i}"] = value.numpy()
    np.savez(output, **found)

"""One process of a distributed training, started by test_distributed.py.

`equal STRATEGY OUTPUT ROWS [VARIANT]` trains on batches whose rows do not divide evenly; the chief writes losses and
weights. Variants: `memory` is a cross-batch memory; `overflow` computes in mixed_float16, with a scaled loss whose
gradient is too large in one row.
`run DIRECTORY [kill]` is a run that resumes; with `kill` the process dies in its second epoch.
"""

import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import datasets, heads, training
from tf_detreg.losses import Contrastive, CrossBatchMemory, ProxyNCA
from tf_detreg.training.distribution import open_place

SAMPLES = 42
RUN = {
    "data": "digits",
    "backbone": {"name": "small_cnn", "width": 4, "blocks": 2},
    "head": {"name": "RealNVP", "dim": 8, "depth": 2, "hidden": 8, "dropout": 0.2, "penalty": 0.05},
    "loss": "ProxyNCA",
    "classes": 5,
    "images": 3,
    "epochs": 3,
    "strategy": "multiworker",
}


class Overflow(keras.layers.Layer):
    """The identity, but the gradient of rows with values of more than 100 is infinite."""

    def call(self, inputs):
        @tf.custom_gradient
        def identity(x):
            return tf.identity(x), lambda g: tf.where(tf.reduce_any(x > 100, axis=1, keepdims=True), g / 0, g)

        return identity(inputs)


def batches(rows, variant=""):
    rng = np.random.default_rng(0)
    labels = np.arange(SAMPLES, dtype="int32") % 3
    images = rng.normal(0, 40, (SAMPLES, 4, 4, 3)) + 60.0 * labels[:, None, None, None]
    if variant == "overflow":
        images[rows - 1] = 3e4  # a row of the last replica, in the first batch alone
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(rows)


def build(variant=""):
    keras.utils.set_random_seed(0)
    if variant == "overflow":
        keras.config.set_dtype_policy("mixed_float16")
    backbone = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()])
    if variant == "overflow":
        backbone.add(keras.layers.Dense(12))
        backbone.add(Overflow())
    embedder = keras.Sequential([backbone, heads.RealNVP(6, depth=2, hidden=8, penalty=0.3, name="head")])
    rival = heads.RealNVP(6, depth=2, hidden=8, penalty=-0.1, name="rival")
    loss = CrossBatchMemory(Contrastive(), memory_size=16, start=1) if variant == "memory" else ProxyNCA(3)
    model = training.MetricModel(embedder, loss, rival, rival_loss_weight=0.5, interpolation=0.4)
    model.compile(training.optimizer(1e-3, 1e-2, 2.0, method="SGD", clipnorm=0.7, ema=0.5))
    return model


def equal(place, output, rows, variant=""):
    with place.strategy.scope():
        model = build(variant)
    history = model.fit(
        place.distribute(batches(rows, variant)),
        epochs=2,
        steps_per_epoch=SAMPLES // rows if place.strategy.num_replicas_in_sync > 1 else None,
        shuffle=False,
        verbose=0,
    ).history
    if place.chief:
        keras.config.set_dtype_policy("float32")
        scale = getattr(model.optimizer, "dynamic_scale", 1.0)
        weights = {"scale": np.array(scale)} | {f"weight/{i}": w for i, w in enumerate(model.get_weights())}
        np.savez(output, **weights, **{name: np.array(values) for name, values in history.items()})


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def run(directory, *kill):
    splits = datasets.Splits(*(part.subset(np.arange(0, len(part), 6)) for part in datasets.digits()))
    config = training.RunConfig.from_dict(RUN)
    training.train(config, directory, resume=True, splits=splits, callbacks=[Kill()] if kill else [], verbose=0)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(*sys.argv[2:])
    else:
        if sys.argv[2] == "mirrored":
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        equal(open_place(sys.argv[2]), sys.argv[3], int(sys.argv[4]), *sys.argv[5:])

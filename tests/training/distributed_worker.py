"""One process of a distributed training, started by test_distributed.py.

`equal STRATEGY OUTPUT ROWS` trains on batches whose rows do not divide evenly; the chief writes losses and weights.
`run DIRECTORY [kill]` is a run that resumes; with `kill` the process dies in its second epoch.
"""

import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import datasets, heads, training
from tf_detreg.losses import ProxyNCA
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


def batches(rows):
    rng = np.random.default_rng(0)
    labels = np.arange(SAMPLES, dtype="int32") % 3
    images = rng.normal(0, 40, (SAMPLES, 4, 4, 3)) + 60.0 * labels[:, None, None, None]
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(rows)


def build():
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()])
    embedder = keras.Sequential([backbone, heads.RealNVP(6, depth=2, hidden=8, penalty=0.3, name="head")])
    rival = heads.RealNVP(6, depth=2, hidden=8, penalty=-0.1, name="rival")
    model = training.MetricModel(embedder, ProxyNCA(3), rival, rival_loss_weight=0.5, interpolation=0.4)
    model.compile(training.optimizer(1e-3, 1e-2, 2.0, method="SGD", clipnorm=0.7, ema=0.5))
    return model


def equal(strategy, output, rows):
    place = open_place(strategy)
    with place.strategy.scope():
        model = build()
    history = model.fit(
        place.distribute(batches(rows)),
        epochs=2,
        steps_per_epoch=SAMPLES // rows if strategy else None,
        shuffle=False,
        verbose=0,
    ).history
    if place.chief:
        weights = {f"weight/{i}": w for i, w in enumerate(model.get_weights())}
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
        equal(sys.argv[2], sys.argv[3], int(sys.argv[4]))

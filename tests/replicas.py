"""All that trains on two replicas of one machine; `test_replicas.py` starts this and compares.

In a process of its own, because logical devices must be set before TensorFlow's first operation; in one, because to
start it takes most of the time.
"""

import pathlib
import sys

import tensorflow as tf

from tests.heads import mirrored_glow
from tests.losses import mirrored_keras
from tests.training import distributed_worker
from tf_detreg.training.distribution import open_place

ROWS = 7  # Dealt to two replicas as 3 and 4.


def main(folder: pathlib.Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    place = open_place("mirrored")  # a second one would number its exchanges as the first did
    assert place.strategy.num_replicas_in_sync == 2
    mirrored_glow.train(place.strategy, folder / "glow.npz")
    mirrored_keras.train(place.strategy, folder / "keras.npz")
    distributed_worker.equal(place, folder / "run.npz", ROWS)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

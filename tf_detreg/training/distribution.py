"""Where a run takes place: in this process, on the devices of this machine, or on several machines.

Every process runs the same program. `TF_CONFIG`, TensorFlow's own variable, tells a process of a cluster who it is.
"""

import dataclasses
import json
import os

import tensorflow as tf

from tf_detreg import checks

STRATEGIES = ("", "mirrored", "multiworker")


@dataclasses.dataclass(frozen=True)
class Place:
    """A strategy and this process' part in it.

    Args:
        strategy: TensorFlow's distribution strategy.
        chief: Whether this process writes the run directory.
    """

    strategy: tf.distribute.Strategy
    chief: bool = True

    def distribute(self, dataset: tf.data.Dataset, prefetch: int = 0) -> tf.data.Dataset:
        """Return global batches as this place's replicas consume them, epoch after epoch without end.

        Args:
            dataset: Of global batches.
            prefetch: Batches that are copied to the one device ahead of their step. Default 0; several devices get
                theirs ahead anyway.

        Each process draws the same batches and takes its own rows. TensorFlow's automatic sharding would deal whole
        batches to the processes instead, and a global batch would then hold other classes than planned.
        """
        if self.strategy.num_replicas_in_sync == 1:
            return _on_device(dataset, prefetch) if prefetch else dataset
        return self.strategy.distribute_datasets_from_function(lambda context: _own_rows(dataset, context))


def open_place(name: str) -> Place:
    """Return the place that a configuration names. Call it before anything else runs on TensorFlow.

    Args:
        name: `""`: TensorFlow's current strategy, which is this process alone unless a scope says otherwise;
            `"mirrored"`: all GPUs of this machine, or its CPU; `"multiworker"`: the machines that `TF_CONFIG` lists.

    Raises:
        ValueError: If there is no such strategy, or `TF_CONFIG` is missing or does not say who this process is.
    """
    if name == "":
        return Place(tf.distribute.get_strategy())
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Place(tf.distribute.MirroredStrategy([device.name for device in devices]))
    if name == "multiworker":
        first = _is_first()
        return Place(tf.distribute.MultiWorkerMirroredStrategy(), first)
    raise checks.invalid("strategy", f"be {checks.listed(STRATEGIES)}", checks.shown(name))


def _on_device(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Return a dataset whose batches are copied to the first GPU, or else the CPU, ahead of their use."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    ahead = dataset.apply(tf.data.experimental.prefetch_to_device(devices[0].name, count))
    # TensorFlow does not know how long such a dataset is. Keras asks it, and warns at the end of an epoch if it is told
    # nothing.
    ahead.cardinality = dataset.cardinality
    return ahead


def _is_first() -> bool:
    """Return whether `TF_CONFIG` makes this process the chief."""
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        kind, index = config["task"]["type"], int(config["task"]["index"])
        # "chief" is there only if the cluster names one; else the first worker is it.
        return kind == ("chief" if "chief" in config.get("cluster", {}) else "worker") and index == 0
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "`strategy` must be another than 'multiworker' without the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}; received '
            f"{os.environ.get('TF_CONFIG')!r}. See docs/scaling.md."
        ) from error


def _own_rows(dataset: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Yield, for each global batch, the rows of each replica of this process in turn; uneven where they must be."""
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local

    def deal(images: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
        rows = tf.shape(images, out_type=tf.int64)[0]

        def part(replica: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start, stop = rows * replica // replicas, rows * (replica + 1) // replicas
            return images[start:stop], labels[start:stop]

        return tf.data.Dataset.range(first, first + local).map(part)

    return dataset.repeat().flat_map(deal).prefetch(local)

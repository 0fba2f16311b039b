"""Small parts of a run: rows of replicas, what data are known by, files that are no arrays."""

import collections
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import datasets, heads, losses, training
from tf_detreg.training import assembly, checkpoint, distribution, stages
from tf_detreg.training.guard import NaNGuard
from tf_detreg.training.schedules import WarmUpDecay


@pytest.mark.parametrize(
    ("rows", "replicas", "processes", "number", "wanted"),
    [
        (7, 2, 1, 0, [[0, 1, 2], [3, 4, 5, 6]]),
        (1, 2, 1, 0, [[], [0]]),
        (7, 2, 2, 0, [[0, 1, 2]]),
        (7, 2, 2, 1, [[3, 4, 5, 6]]),
        (8, 4, 2, 1, [[4, 5], [6, 7]]),
    ],
)
def test_each_replica_gets_its_rows_of_a_global_batch(rows, replicas, processes, number, wanted):
    context = types.SimpleNamespace(
        num_replicas_in_sync=replicas, num_input_pipelines=processes, input_pipeline_id=number
    )
    batch = tf.data.Dataset.from_tensors((tf.range(rows), -tf.range(rows)))
    found = list(distribution._own_rows(batch, context).take(2 * len(wanted)).as_numpy_iterator())
    assert [images.tolist() for images, _ in found] == 2 * wanted
    assert all((labels == -images).all() for images, labels in found)


Parts = collections.namedtuple("Parts", ["train"])


class Features:
    """A part of a set whose features are kept."""

    def __init__(self, count, shift=0.0, row=0):
        self.labels, self.class_names, self.num_classes = np.zeros(count, np.int32), ("a",), 1
        self.rows = np.arange(count)
        self.features = np.zeros((count, 2), np.float32)
        self.features[row] += shift

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize("count", [1, 63, 200])
def test_data_are_known_by_some_of_their_features(count):
    def mark(**options):
        return assembly.data_facts(Parts(Features(count, **options)))["train"]

    assert mark() == mark() and mark()["images"] == count and mark()["classes"] == 1
    assert mark() != mark(shift=1.0)
    if count == 200:  # every third
        assert mark() != mark(shift=1.0, row=198) and mark() == mark(shift=1.0, row=199)


class Touches:
    """Runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_is_never_unpickled(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    objects = np.array([Touches(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "epoch-0001.npz", **{checkpoint._NOTES: '{"epoch": 1}', "x": objects})
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.restore(model, tmp_path / "epoch-0001.npz")
    assert not (tmp_path / "ran").exists()


def test_a_schedule_has_a_step_left_after_its_rise():
    for decay in ("linear", "cosine"):
        for steps in (None, 3, 4):
            with pytest.raises(ValueError, match=r"`steps` must be above warmup \+ delay = 4"):
                WarmUpDecay(1.0, steps, warmup=3, delay=1, decay=decay)
        assert float(WarmUpDecay(1.0, 5, warmup=3, delay=1, decay=decay)(4)) == 1.0
    WarmUpDecay(1.0, None, warmup=3, decay="none")
    for every in (None, 0, -1):
        with pytest.raises(ValueError, match="`every` must be"):
            WarmUpDecay(1.0, decay="step", every=every)
    steps = WarmUpDecay(1.0, decay="step", every=2, factor=0.5)
    assert [float(steps(t)) for t in range(5)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def metric_model(optimizer):
    body = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
    model = training.MetricModel(
        keras.Sequential([keras.Input((2, 2, 3)), body, heads.Linear(4)]), losses.ProxyAnchor(3)
    )
    model.compile(optimizer)
    return model


def test_the_schedule_of_a_group_that_rests_goes_on():
    model = metric_model(training.optimizer(1e-2, 1e-2, 10, steps=10))
    variables = model.trainable_variables
    model.optimizer.build(variables)
    resting = [model.optimizer.group_of(variable) == "backbone" for variable in variables]
    assert any(resting) and not all(resting)
    before = [variable.numpy() for variable in variables]
    gradients = [None if rests else tf.ones(v.shape) for rests, v in zip(resting, variables, strict=True)]
    model.optimizer.apply(gradients, variables)
    assert {int(inner.iterations) for inner in model.optimizer.optimizers} == {1} == {int(model.optimizer.iterations)}
    moved = [np.any(old != variable.numpy()) for old, variable in zip(before, variables, strict=True)]
    assert moved == [not rests for rests in resting]


def test_a_model_says_what_shape_its_embeddings_have():
    model = metric_model("sgd")
    assert model.compute_output_shape((7, 2, 2, 3)) == (7, 4)
    assert model.compute_output_shape((None, 2, 2, 3)) == (None, 4)


def test_data_are_named_by_their_loader_and_by_nothing_else_that_is_there():
    splits = assembly.load_splits(training.RunConfig.from_dict({"data": "digits"}))
    assert [part.num_classes for part in splits] == [part.num_classes for part in datasets.digits()]
    for name in ("ImageSet", "decode", "no_such_data"):
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            assembly.load_splits(training.RunConfig.from_dict({"data": name}))


def test_two_classes_are_enough_to_train_on():
    splits = datasets.digits()
    two = splits._replace(train=splits.train.select_classes([0, 1]))
    assert stages.load_data(None, None, two).splits is two
    for train in (splits.train.select_classes([0]), splits.train.subset([])):
        with pytest.raises(ValueError, match="at least 2 classes are needed"):
            stages.load_data(None, None, splits._replace(train=train))


def test_weights_are_kept_every_so_many_batches():
    guard, kept = NaNGuard(every=3), []
    guard._take_snapshot = lambda: kept.append(guard._seen)
    guard.on_train_begin()
    for batch in range(7):
        guard.on_train_batch_end(batch, {"loss": 1.0})
    assert kept == [0, 3, 6]
    guard.on_epoch_end(0)
    assert kept == [0, 3, 6, 7]

"""`MetricModel` trains every loss with every regularizer: each run takes one loss and all regularizers at once.

Both lists are read from the packages, so that a new loss or regularizer is covered without a line here.
"""

import contextlib
import inspect

import keras
import numpy as np
import pytest

from tests.eager import eagerly
from tf_detreg import heads, losses, regularizers
from tf_detreg.training import MetricModel

CLASSES, DIM = 4, 4

# Multi-hot labels are no class numbers: this one trains with `compile(loss=…)` in a plain Keras model.
OTHER_LABELS = {"NPairsMultilabel"}


def classes_of(package, bases, abstract):
    for name in package.__all__:
        found = getattr(package, name)
        if inspect.isclass(found) and issubclass(found, bases) and found not in abstract:
            yield found


LOSSES = [
    loss
    for loss in classes_of(losses, (keras.losses.Loss, keras.layers.Layer), {losses.ProxyLoss, losses.PairLoss})
    if loss.__name__ not in OTHER_LABELS
]
REGULARIZERS = list(classes_of(regularizers, regularizers.Regularizer, {regularizers.Regularizer}))


def make_loss(loss):
    arguments = {
        "num_classes": CLASSES,
        "loss": losses.Contrastive(),
        "size": 8,
    }
    needed = inspect.signature(loss.__init__).parameters
    return loss(**{name: value for name, value in arguments.items() if name in needed})


def make_regularizer(regularizer):
    arguments = {"texts": np.eye(CLASSES), "dim": DIM, "depth": 1, "hidden": 4}
    needed = inspect.signature(regularizer.__init__).parameters
    return regularizer(weight=0.01, **{name: value for name, value in arguments.items() if name in needed})


HEADS = {
    "linear": lambda: heads.Linear(DIM),
    "real_nvp": lambda: heads.RealNVP(DIM, depth=1, hidden=4, penalty=0.05),
}


def model_of(loss, head, chosen):
    images = keras.Input((4, 4, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    return MetricModel(keras.Model(images, HEADS[head]()(features)), loss, regularizers=chosen)


def batch():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 3)
    images = rng.uniform(0, 255, (CLASSES, 4, 4, 3))[labels] + rng.normal(0, 30, (len(labels), 4, 4, 3))
    return images.astype("float32"), labels


# With two dozen losses, nearly all of the time would go into tracing the same regularizers; every loss is traced in
# `losses/test_every_loss.py`.
TRACED = (losses.ProxyAnchor, losses.MultiSimilarity)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_every_loss_trains_with_every_regularizer(loss):
    with contextlib.nullcontext() if loss in TRACED else eagerly():
        train_with_every_regularizer(loss)


def train_with_every_regularizer(loss):
    keras.utils.set_random_seed(0)
    head = list(HEADS)[LOSSES.index(loss) % len(HEADS)]
    chosen = [make_regularizer(regularizer) for regularizer in REGULARIZERS]
    model = model_of(make_loss(loss), head, chosen)
    model.compile(keras.optimizers.Adam(1e-2))
    before = [variable.numpy() for variable in model.trainable_variables]
    images, labels = batch()
    history = model.fit(images, labels, batch_size=len(labels), epochs=2, shuffle=False, verbose=0).history
    assert {regularizer.name for regularizer in chosen} <= set(history)
    for name, values in history.items():
        assert np.isfinite(values).all(), name
    changed = [np.any(variable.numpy() != old) for variable, old in zip(model.trainable_variables, before, strict=True)]
    assert all(changed), [v.path for v, c in zip(model.trainable_variables, changed, strict=True) if not c]


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda regularizer: regularizer.__name__)
@pytest.mark.parametrize("loss", [losses.SoftTriple, losses.MultiSimilarity])
def test_the_objective_grows_by_the_weighted_penalty(loss, regularizer):
    images, labels = batch()
    model = model_of(make_loss(loss), "linear", [make_regularizer(regularizer)])
    model.compile()
    keras.utils.set_random_seed(1)
    objective, terms, _ = model.objective(images, labels, training=False)
    term = terms[model.regularizers[0].name]
    wanted = terms["metric_loss"] + 0.01 * term
    np.testing.assert_allclose(objective, wanted, rtol=1e-6)


def test_a_regularized_model_saves_and_loads(tmp_path):
    images, labels = batch()
    chosen = [make_regularizer(regularizer) for regularizer in REGULARIZERS]
    model = model_of(losses.ProxyAnchor(CLASSES), "linear", chosen)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [r.get_config() for r in loaded.regularizers] == [r.get_config() for r in chosen]
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())

"""The guard's bookkeeping: when it keeps the weights, how far it steps back, and what it says."""

import types

import numpy as np
import pytest

from tf_detreg.training.guard import NaNGuard, TrainingDiverged


class Weight:
    def __init__(self):
        self.value = np.zeros(2)

    def numpy(self):
        return self.value.copy()

    def assign(self, value):
        self.value = value.copy()


def guarded(every):
    guard, weight = NaNGuard(every), Weight()
    guard.set_model(
        types.SimpleNamespace(weights=[weight], optimizer=types.SimpleNamespace(variables=[]), stop_training=False)
    )
    guard.on_train_begin()
    guard.on_epoch_begin(1)
    return guard, weight


def train(guard, weight, batches, first=0):
    """Each batch adds 1 to the weight."""
    for batch in range(first, first + batches):
        weight.value = weight.value + 1
        guard.on_train_batch_end(batch, {"loss": 1.0, "pull": 0.5})


@pytest.mark.parametrize(("every", "good", "kept"), [(3, 5, 3), (3, 3, 3), (3, 2, 0), (1, 4, 4), (100, 7, 0)])
def test_it_steps_back_to_the_last_snapshot_and_says_how_far(every, good, kept):
    guard, weight = guarded(every)
    train(guard, weight, good)
    assert guard.reason is None and not guard.model.stop_training
    weight.value = np.full(2, np.nan)
    guard.on_train_batch_end(good, {"loss": float("nan"), "pull": float("inf")})
    assert weight.value.tolist() == [kept, kept] and guard.model.stop_training
    assert guard.reason.startswith(f"Training stopped in epoch 2 at batch {good + 1}: pull became NaN or infinite. ")
    assert f"those of {good + 1 - kept} batch(es) earlier. Lower the weight of this term" in guard.reason
    before = guard.reason
    guard.on_epoch_end(1)
    assert guard.reason == before


def test_each_epoch_ends_with_a_snapshot_and_training_begins_anew():
    guard, weight = guarded(100)
    train(guard, weight, 4)
    guard.on_epoch_end(1)
    train(guard, weight, 2)
    guard.on_train_batch_end(2, {"loss": float("inf"), "pull": 1.0})
    assert weight.value.tolist() == [4, 4] and ": loss became" in guard.reason and "those of 3 batch" in guard.reason
    guard.on_train_begin()
    assert guard.reason is None
    guard.on_train_batch_end(0, {"a": float("nan"), "b": float("nan"), "loss": float("nan")})
    assert "a, b became NaN or infinite. The weights are those of 1 batch(es) earlier. Look for NaN" in guard.reason


def test_weights_that_are_not_finite_are_told_without_any_term():
    guard, weight = guarded(2)
    train(guard, weight, 1)
    weight.value[0] = np.nan
    train(guard, weight, 1, first=1)
    assert weight.value.tolist() == [0, 0] and "the weights became NaN or infinite" in guard.reason
    assert "Look for NaN in the images" in guard.reason
    fresh = NaNGuard()
    fresh.set_model(guard.model)
    weight.value[1] = np.inf
    with pytest.raises(TrainingDiverged, match="before training has begun"):
        fresh.on_train_begin()

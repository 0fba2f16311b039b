"""Batches whatever the classes. Those of P classes × K images are in test_batches.py."""

import pytest

from tf_detreg.datasets import sampler as sampler_module


def test_shuffled_batches_hold_each_image_once_an_epoch_and_follow_from_the_seed():
    labels = [0, 0, 1, 1, 1, 2, 2]
    drawn = sampler_module.sampler(labels, classes=0, images=3, seed=5)
    assert (drawn.steps, drawn.batch_size) == (2, 3)
    epochs = [[batch.indices.tolist() for batch in drawn.epoch(epoch)] for epoch in (0, 1)]
    assert all(len({*batches[0], *batches[1]}) == 6 for batches in epochs) and epochs[0] != epochs[1]
    again = sampler_module.sampler(labels, classes=0, images=3, seed=5)
    assert [batch.indices.tolist() for batch in again.epoch(1)] == epochs[1]
    assert sampler_module.sampler(labels, classes=0, images=99, seed=0).batch_size == 7
    with pytest.raises(ValueError, match="`images`"):
        sampler_module.sampler(labels, classes=0, images=0, seed=0)

"""The order of classes and images over many epochs, from the seed and the number of the epoch alone."""

import math
from collections import Counter

import numpy as np
import pytest

from tf_detreg.datasets.sampler import ClassSampler, sampler


def drawn(batches, epochs):
    return np.concatenate([batch.indices for epoch in range(epochs) for batch in batches.epoch(epoch)])


def test_a_large_class_is_seen_whole():
    """A class of 500 among small ones: 504 draws in 42 epochs."""
    labels = np.concatenate([np.zeros(500, int), np.repeat(np.arange(1, 26), 4)])
    batches = ClassSampler(labels, classes=26, images=2, seed=0)
    per_epoch = sum((batch.indices < 500).sum() for batch in batches.epoch(0))
    epochs = math.ceil(500 / per_epoch)
    indices = drawn(batches, epochs)
    seen = Counter(indices[indices < 500].tolist())
    assert len(seen) == 500 and max(seen.values()) <= 2


@pytest.mark.parametrize(
    ("sizes", "classes", "images"),
    [((500, 3, 7, 11, 4), 2, 4), ((5, 6, 7), 3, 4), ((9,) * 7, 3, 2), ((1, 2, 30), 2, 5), ((40, 8), 1, 3)],
)
def test_epochs_go_on_where_the_last_one_stopped(sizes, classes, images):
    """After any batch, draws of two classes differ by one at most, and so do draws of two images of a class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    batches = ClassSampler(labels, classes, images, seed=1)
    seen = np.zeros(len(labels), int)
    for epoch in range(12):
        for batch in batches.epoch(epoch):
            kinds = labels[batch.indices[::images]]
            assert len(set(kinds)) == classes
            np.testing.assert_array_equal(labels[batch.indices], np.repeat(kinds, images))
            np.add.at(seen, batch.indices, 1)
            for label in range(len(sizes)):
                assert np.ptp(seen[labels == label]) <= 1
            draws = [seen[labels == label].sum() // images for label in range(len(sizes))]
            assert np.ptp(draws) <= 1


def test_an_epoch_does_not_ask_what_was_drawn_before():
    labels = np.repeat(np.arange(7), (30, 3, 5, 8, 2, 9, 4))
    make = lambda seed=4: ClassSampler(labels, classes=4, images=3, seed=seed)  # noqa: E731
    one = make()
    unbroken = [[batch for batch in one.epoch(epoch)] for epoch in range(9)]
    for epoch in (8, 3, 0):
        for a, b in zip(unbroken[epoch], make().epoch(epoch), strict=True):
            np.testing.assert_array_equal(a.indices, b.indices)
            np.testing.assert_array_equal(a.seed, b.seed)
    assert any((a.indices != b.indices).any() for a, b in zip(unbroken[0], make(5).epoch(0), strict=True))
    seeds = [tuple(batch.seed) for epoch in unbroken for batch in epoch]
    assert len(set(seeds)) == len(seeds)


def test_orders_change_from_round_to_round_and_from_pass_to_pass():
    batches = ClassSampler(np.repeat(np.arange(6), 8), classes=6, images=8, seed=0)
    rounds = [tuple(batch.indices[::8] // 8) for epoch in range(8) for batch in batches.epoch(epoch)]
    assert len(set(rounds)) > 4
    passes = {tuple(batch.indices[batch.indices < 8]) for epoch in range(8) for batch in batches.epoch(epoch)}
    assert len(passes) > 4


def test_an_epoch_has_a_round_at_least():
    """Many classes of one image: a batch of K images of each is more than the set has."""
    batches = ClassSampler(np.arange(10), classes=4, images=5, seed=0)
    assert batches.steps == 3
    assert set(drawn(batches, 1).tolist()) == set(range(10))
    assert ClassSampler(np.repeat([0, 1], 50), classes=2, images=5).steps == 10
    assert ClassSampler(np.repeat([0, 1], 13), classes=2, images=5).steps == 3  # 26 / 10, rounded


def test_shuffled_batches_hold_each_image_once_an_epoch_and_follow_from_the_seed():
    labels = [0, 0, 1, 1, 1, 2, 2]
    batches = sampler(labels, classes=0, images=3, seed=5)
    assert (batches.steps, batches.batch_size) == (2, 3)
    epochs = [[batch.indices.tolist() for batch in batches.epoch(epoch)] for epoch in (0, 1)]
    assert all(len({*first, *second}) == 6 for first, second in epochs) and epochs[0] != epochs[1]
    again = sampler(labels, classes=0, images=3, seed=5)
    assert [batch.indices.tolist() for batch in again.epoch(1)] == epochs[1]
    assert sampler(labels, classes=0, images=99, seed=0).batch_size == 7
    with pytest.raises(ValueError, match="`images`"):
        sampler(labels, classes=0, images=0, seed=0)

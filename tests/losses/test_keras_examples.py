"""What docs/migration/keras_examples.md says of the formulas in Keras' examples, written out here in numpy."""

import numpy as np
import pytest

from tf_detreg import losses


def unit(seed, count=6, dim=4):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(logits, targets):
    """The mean over rows."""
    logits = np.asarray(logits, np.float64)
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - (targets * logits).sum(axis=1)))


def pairs_in_one_batch(anchors, positives):
    """As `ImageSet.batches(images=2)` has them: the two of a class one after another."""
    return np.repeat(np.arange(len(anchors)), 2), np.stack([anchors, positives], axis=1).reshape(-1, anchors.shape[1])


def test_similarity_search_is_n_pairs_of_length_root_five():
    anchors, positives = unit(0), unit(1)
    theirs = cross_entropy(anchors @ positives.T / 0.2, np.eye(6))
    labels, rows = pairs_in_one_batch(anchors, positives)
    assert float(losses.NPairs()(labels, 5**0.5 * rows)) == pytest.approx(theirs, rel=1e-5)
    assert float(losses.NTXent(temperature=0.2)(labels, rows)) > theirs + 0.2  # more negatives


def test_one_triplet_has_the_value_of_the_siamese_network():
    anchor, positive, negative = unit(2, 3)
    theirs = max(np.square(anchor - positive).sum() - np.square(anchor - negative).sum() + 0.5, 0)
    swapped = max(np.square(anchor - positive).sum() - np.square(positive - negative).sum() + 0.5, 0)
    loss = losses.Triplet(margin=0.5, distance="squared", average="all", normalize=False)
    ours = loss([0, 0, 1], np.stack([anchor, positive, negative]))
    # Both images of the class are anchors here.
    assert theirs > 0 and float(ours) == pytest.approx((theirs + swapped) / 2, rel=1e-5)


def test_supervised_contrastive_counts_the_anchor_as_its_own_positive():
    labels, rows = np.array([0, 0, 1, 1, 2, 2]), unit(3)
    same = labels[:, None] == labels
    theirs = cross_entropy(rows @ rows.T / 0.05, same / same.sum(axis=1))
    loss = losses.SupCon(temperature=0.05)
    assert float(np.mean(loss.against(labels, rows, labels, rows))) == pytest.approx(theirs, rel=1e-5)
    assert abs(float(loss(labels, rows)) - theirs) > 0.1


def test_simclr_is_the_mean_of_n_pairs_in_both_directions():
    one, other = unit(4), unit(5)
    logits = one @ other.T / 0.1
    theirs = (cross_entropy(logits, np.eye(6)) + cross_entropy(logits.T, np.eye(6))) / 2
    both = [losses.NPairs()(*pairs_in_one_batch(10**0.5 * a, 10**0.5 * b)) for a, b in ((one, other), (other, one))]
    assert np.mean(both) == pytest.approx(theirs, rel=1e-5)
    assert abs(float(losses.NTXent(temperature=0.1)(*pairs_in_one_batch(one, other))) - theirs) > 0.1


def test_the_example_that_is_called_contrastive_is_a_squared_error():
    score, same = np.array([0.1, 0.6, 0.9]), np.array([1.0, 0.0, 1.0])
    theirs = np.mean((1 - same) * score**2 + same * np.maximum(1 - score, 0) ** 2)
    assert theirs == pytest.approx(np.mean((score - same) ** 2))

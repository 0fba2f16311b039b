"""Equal distances: which side of a comparison a tie falls on, in losses and miners. Axes are √2 apart to the bit."""

import numpy as np
import pytest

from tf_detreg import losses, miners

AXES = np.eye(3, dtype="float32")  # two of class 0, one of class 1: every distance is √2
LABELS = [0, 0, 1]
TWINS = np.eye(3, dtype="float32")[[0, 0, 1]]  # the positive at distance 0, the negative at √2
ROOT = float(np.sqrt(np.float32(2)))


def listed(mined):
    return sorted(zip(*(index.numpy().tolist() for index in mined), strict=True))


BOTH = [(0, 1, 2), (1, 0, 2)]


@pytest.mark.parametrize(
    "miner, x, expected",
    [
        (miners.SemiHard(1.0), AXES, []),  # farther than the positive, not as far
        (miners.SemiHard(ROOT), TWINS, BOTH),  # by the margin, the margin included
        (miners.SemiHard(ROOT - 1e-3), TWINS, []),
        (miners.Hard(), AXES, BOTH),  # as near as the positive is hard
        (miners.DistanceWeighted(nonzero_loss_cutoff=ROOT), AXES, []),  # never at the cutoff
        (miners.DistanceWeighted(nonzero_loss_cutoff=ROOT + 1e-3), AXES, BOTH),
    ],
)
def test_triplets_at_a_tie(miner, x, expected):
    assert listed(miner(LABELS, x)) == expected


@pytest.mark.parametrize(
    "strategies, kept",
    [
        (("easy", "semi_hard"), False),
        (("semi_hard", "hard"), False),
        (("easy", "hard"), True),
        (("hard", "easy"), True),
    ],
)
def test_easy_hard_at_a_tie(strategies, kept):
    mined = miners.BatchEasyHard(*strategies)(LABELS, AXES)
    assert mined.negatives.numpy().tolist() == [[False, False, kept], [False, False, kept], [False] * 3]
    assert mined.positives.numpy().any() == kept


@pytest.mark.parametrize("strategy", ["easy", "hard"])
def test_of_equal_pairs_the_first_is_kept(strategy):
    labels, x = [0, 0, 0, 1, 1], np.eye(5, dtype="float32")
    mined = miners.BatchEasyHard(strategy, strategy)(labels, x)
    assert mined.positives.numpy()[0].tolist() == [False, True, False, False, False]
    assert mined.negatives.numpy()[0].tolist() == [False, False, False, True, False]


def test_multi_similarity_keeps_no_pair_at_the_margin():
    kept = miners.MultiSimilarity(0.0)(LABELS, AXES)  # every cosine is 0
    assert not kept.positives.numpy().any() and not kept.negatives.numpy().any()
    kept = miners.MultiSimilarity(1e-3)(LABELS, AXES)
    assert kept.positives.numpy().sum() == 2 and kept.negatives.numpy().sum() == 2


def test_an_angle_at_the_threshold_is_not_above_it():
    # d_ap = √2 and the center is √(3/2) from the negative: tan = 1/√3, an angle of 30 degrees.
    assert listed(miners.Angular(30.001)(LABELS, AXES)) == []
    assert listed(miners.Angular(29.999)(LABELS, AXES)) == BOTH


@pytest.mark.parametrize(
    "loss, x, expected",
    [
        (losses.Triplet(0.2, negatives="semi_hard", average="all"), AXES, 0.0),
        (losses.Triplet(0.2, negatives="hard", average="all"), AXES, 0.2),
        (losses.Triplet(0.2, average="nonzero"), AXES, 0.2),
        (losses.Triplet(0.0, average="nonzero"), AXES, 0.0),
        (losses.Triplet(ROOT, negatives="semi_hard", average="all"), TWINS, 0.0),
        (losses.TripletBatchHard(0.2), AXES, 0.2),
    ],
)
def test_triplet_losses_at_a_tie(loss, x, expected):
    assert float(loss(LABELS, x)) == pytest.approx(expected, abs=1e-6)


def test_a_negative_as_far_as_the_positive_is_not_facenets_semi_hard_one():
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]], "float32")
    # Anchor 0: squared distances 2 (positive), 2 and 4: the one at 4 is farther, and costs 0. Anchor 1: all are 2.
    assert float(losses.TripletSemiHard(0.2)([0, 0, 1, 2], x)) == pytest.approx(0.1, abs=1e-6)


def test_a_pair_at_the_margin_costs_nothing_and_is_not_counted():
    loss = losses.Contrastive(power=1, negative_margin=ROOT, average="nonzero")
    assert float(loss([0, 1], AXES[:2])) == 0.0
    pairs = losses.Contrastive(power=1, negative_margin=ROOT + 0.1, average="nonzero")
    x = np.concatenate([AXES[:2], -AXES[:1]])  # of three pairs those of the opposite ones, 2 apart, do not count
    assert float(pairs([0, 1, 2], x)) == pytest.approx(0.1, abs=1e-6)

"""Classes dealt into train, validation and test."""

import numpy as np
import pytest

from tf_detreg.datasets.image_set import ImageSet, hold_out, split_by_class

CLASSES = 20


@pytest.fixture(scope="module")
def whole():
    labels = np.arange(CLASSES).repeat(2)
    return ImageSet(
        labels=labels, class_names=[str(c) for c in range(CLASSES)], images=np.zeros((40, 2, 2, 3), np.uint8)
    )


def names(parts):
    return [sorted(map(int, part.class_names)) for part in parts]


def test_every_class_is_in_one_part(whole):
    train, validation, test = names(split_by_class(whole, 0.2, 0.3, seed=3))
    assert (len(train), len(validation), len(test)) == (10, 4, 6)
    assert sorted(train + validation + test) == list(range(CLASSES))


def test_the_seed_chooses_the_classes_whatever_their_order(whole):
    """Class folders are often sorted by kind (species by genus): a deal in their order would test on other kinds."""
    deals = [names(split_by_class(whole, seed=seed)) for seed in range(40)]
    assert deals[0] == names(split_by_class(whole, seed=0))
    for part in range(3):
        assert len({tuple(deal[part]) for deal in deals}) > 30
    assert {c for _, _, test in deals for c in test} == set(range(CLASSES))


def test_held_out_classes_follow_from_the_seed(whole):
    held = [names(hold_out(whole, 0.2, seed))[1] for seed in range(40)]
    assert len({tuple(classes) for classes in held}) > 30 and all(len(classes) == 4 for classes in held)

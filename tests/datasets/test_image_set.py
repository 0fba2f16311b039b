"""Labels, selections, and classes dealt into train, validation and test."""

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


def a_set(labels, classes=3):
    return ImageSet(labels=labels, class_names=list("abc")[:classes], images=np.zeros((len(labels), 4, 4), np.uint8))


def test_labels_are_a_vector_of_whole_numbers():
    for wrong in ([[0], [1]], [0.0, 1.0], ["a", "b"]):
        with pytest.raises(ValueError, match="`labels` must be a vector of integers"):
            a_set(wrong)
    assert a_set([]).labels.dtype == np.int32
    with pytest.raises(ValueError, match="fit into int32"):
        a_set([0, 2**31])


def test_classes_are_selected_by_different_numbers_that_are_there():
    whole = a_set([0, 1, 2, 2])
    kept = whole.select_classes([2, 0])
    assert kept.class_names == ("c", "a") and kept.labels.tolist() == [1, 0, 0]
    assert len(whole.select_classes([])) == 0
    for wrong in ([0, 3], [-1, 2], [1, 1]):
        with pytest.raises(ValueError, match=r"`ids` must be different numbers in 0\.\.2"):
            whole.select_classes(wrong)


def test_shares_of_classes():
    whole = ImageSet(labels=np.arange(10), class_names=list("abcdefghij"), images=np.zeros((10, 2, 2), np.uint8))
    assert [part.num_classes for part in split_by_class(whole, 0.2, 0.3)] == [5, 2, 3]
    assert [part.num_classes for part in split_by_class(whole, 0.0, 0.3)] == [7, 0, 3]
    assert [part.num_classes for part in split_by_class(whole, 0.01, 0.01)] == [8, 1, 1]
    for wrong in ((-0.1, 0.3), (0.5, 0.5)):
        with pytest.raises(ValueError, match="must be shares that leave classes for training"):
            split_by_class(whole, *wrong)
    kept, held = hold_out(whole, 0.25)
    assert (kept.name, held.name) == ("images/train", "images/validation") and held.num_classes == 2

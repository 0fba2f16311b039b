"""Labels, selections, and classes dealt into train, validation and test."""

import re

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "`images` must be given (an array), or `paths` (file names); received neither"),
        ({"paths": ["a.png", "b.png"]}, "; received both"),
        ({"images": None, "paths": ["a.png", "b.png"]}, "`image_size` must be the size at which the files in `paths`"),
        ({"images": None, "paths": "a.png", "image_size": 8}, "a list of file names; received the one name 'a.png'"),
        ({"labels": [0]}, "`labels` must be one an image, 2; received 1"),
        ({"groups": [0, 1, 2]}, "`groups` must be one an image, 2; received 3"),
        ({"labels": [0, 2]}, "`labels` must lie in 0..C-1 for the C=2 `class_names`; received 0 to 2"),
        ({"labels": [-1, 1]}, "; received -1 to 1"),
    ],
)
def test_what_does_not_fit_together_is_no_set(changes, message):
    arguments = {"labels": [0, 1], "class_names": ["a", "b"], "images": np.zeros((2, 4, 4, 3), np.uint8)}
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageSet(**{**arguments, **changes})


def test_a_set_holds_pixels_or_files():
    in_memory = a_set([0, 1])
    on_disk = ImageSet(labels=[0, 1], class_names=["a", "b"], paths=["a.png", "b.png"], image_size=8)
    assert in_memory.pixels.shape == (2, 4, 4, 3) and list(on_disk.files) == ["a.png", "b.png"]
    with pytest.raises(ValueError, match="holds images in memory: there are no files"):
        in_memory.files  # noqa: B018 - a property that raises
    with pytest.raises(ValueError, match="holds files, whose pixels are read in batches"):
        on_disk.pixels  # noqa: B018


def test_arrays_have_a_name_for_each_label():
    from tf_detreg import datasets

    labels = np.repeat([3, 1, 7, 5], 2)
    images = np.zeros((8, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="`class_names` must be one a label, 4; received 3"):
        datasets.arrays(images, labels, class_names=["a", "b", "c"])
    whole = datasets.arrays(images, labels, class_names=["one", "three", "five", "seven"], validation=0.25, test=0.25)
    named = [*whole.train.class_names, *whole.validation.class_names, *whole.test.class_names]
    assert sorted(named) == ["five", "one", "seven", "three"]

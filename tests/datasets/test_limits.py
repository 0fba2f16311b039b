"""Arguments of data sets at their exact limits."""

import functools

import keras
import numpy as np
import pytest

from tests.limits import NEXT, check
from tf_detreg import datasets
from tf_detreg.datasets.batches import ordered_batches
from tf_detreg.datasets.read_files import SkipLog
from tf_detreg.datasets.sampler import ClassSampler, ShuffledSampler

IMAGES = datasets.ImageSet(np.arange(6) % 3, list("abc"), np.zeros((6, 4, 4, 3), np.uint8))
FLAT = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
DRAWN = functools.partial(ClassSampler, [0, 0, 1, 1], images=1)


@pytest.mark.parametrize(
    ("call", "name", "allowed", "refused"),
    [
        (functools.partial(DRAWN, seed=0), "classes", [1, 2], [0]),
        (functools.partial(ClassSampler, [0, 1], classes=1, seed=0), "images", [1], [0]),
        (functools.partial(DRAWN, classes=1), "seed", [0], [-1]),
        (lambda images: ShuffledSampler([0] * 4, images, 0), "images", [1], [0]),
        (lambda seed: ShuffledSampler([0] * 4, 1, seed), "seed", [0], [-1]),
        (functools.partial(ordered_batches, IMAGES), "batch_size", [1], [0]),
        (lambda max_unreadable: SkipLog(4, max_unreadable, "x"), "max_unreadable", [0.0, 1.0], [-NEXT, 1 + NEXT]),
    ],
)
def test_limits(call, name, allowed, refused):
    check(call, name, allowed, refused)


def test_the_share_of_unreadable_images_is_a_share(tmp_path):
    cached = functools.partial(datasets.cache_features, FLAT, IMAGES, tmp_path)
    check(cached, "max_unreadable", [0.0, 1.0], [-NEXT, 1 + NEXT])
    with pytest.raises(ValueError, match=r"^`backbone` must give features \(B, F\); received one that gives"):
        datasets.cache_features(keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Identity()]), IMAGES, tmp_path)


def test_as_many_may_be_unreadable_as_the_share_says_and_no_more(caplog):
    log = SkipLog(4, 0.5, "photos")
    log.add(0, "first")
    log.add(0, "first again")
    log.add(3, "second")
    assert log.reasons == {0: "first", 3: "second"} and "first again" not in caplog.text
    with pytest.raises(ValueError, match=r"3 of the 4 images of photos cannot be read, .* 50.0%.* The last one: third"):
        log.add(1, "third")
    caplog.clear()
    log.report()
    log.report()
    assert caplog.text.count("3 unreadable images of photos were skipped:\n  first\n  second\n  third") == 1
    log.report()
    many = SkipLog(100, 1.0, "photos")
    for number in range(21):
        many.add(number, f"number {number}.")
    caplog.clear()
    many.report()
    assert "number 19." in caplog.text and "number 20." not in caplog.text and caplog.text.rstrip().endswith("…")

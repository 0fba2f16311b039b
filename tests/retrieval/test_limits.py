"""Arguments of evaluations and decisions at their exact limits."""

import functools

import keras
import numpy as np
import pytest

from tests.limits import NEXT, check
from tf_detreg import datasets, retrieval, training
from tf_detreg.retrieval import codes

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(20), 6)
POINTS = np.repeat(np.eye(20, 24), 6, axis=0) + 0.1 * RNG.standard_normal((120, 24))

OPEN = functools.partial(retrieval.open_set, POINTS, LABELS, scores="nearest", resamples=0, fpirs=(0.5,))
FITTED = functools.partial(retrieval.calibrate, POINTS, LABELS, target=0.5, resamples=2)
PAIRS = functools.partial(retrieval.verification, POINTS, LABELS, resamples=0)
RANKED = functools.partial(retrieval.evaluate, POINTS, LABELS, k=1, metrics="recall", resamples=0)


@pytest.mark.parametrize(
    ("call", "name", "allowed", "refused"),
    [
        (OPEN, "folds", [2], [1]),
        (OPEN, "neighbors", [1], [0]),
        (OPEN, "resamples", [0], [-1]),
        (OPEN, "fpirs", [[1.0]], [[0.0], [1 + NEXT], [0.5, 0.0]]),
        (FITTED, "folds", [2], [1]),
        (FITTED, "neighbors", [1], [0]),
        (FITTED, "resamples", [1], [0]),
        (FITTED, "confidence", [1.0], [0.0, 1 + NEXT]),
        (FITTED, "target", [1.0], [0.0, 1 + NEXT]),
        (PAIRS, "max_pairs", [1], [0]),
        (PAIRS, "resamples", [0], [-1]),
        (PAIRS, "fars", [[1.0]], [[0.0], [1 + NEXT]]),
        (RANKED, "resamples", [0], [-1]),
        (functools.partial(RANKED, engine="scann"), "target_recall", [1.0], [0.0, 1 + NEXT]),
        (lambda dimensions: codes.Layout("int8", dimensions).checked(24), "dimensions", [1, 24], [0, 25]),
    ],
)
def test_limits(call, name, allowed, refused):
    check(call, name, allowed, refused)


def test_a_measured_decision_has_the_limits_of_its_fit():
    decision = FITTED()
    measured = functools.partial(retrieval.measure, decision, POINTS, LABELS, resamples=1)
    check(measured, "folds", [2], [1])
    check(measured, "resamples", [1], [0])


def test_an_empty_set_is_not_embedded():
    images = datasets.ImageSet(np.zeros(1, int), ["a"], np.zeros((1, 4, 4, 3), np.uint8))
    embedder = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    assert training.embed(embedder, images).embeddings.shape == (1, 48)
    with pytest.raises(ValueError, match=r"^`image_set` must hold an image; received none"):
        training.embed(embedder, images.subset([]))

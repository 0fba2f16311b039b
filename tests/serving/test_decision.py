"""What the search page is told about matches when the index has a decision."""

import dataclasses

import numpy as np
import pytest

from tf_detreg import export, retrieval
from tf_detreg.index import Index
from tf_detreg.serving.gallery import Gallery


@pytest.fixture(scope="module")
def decided(embedder, pictures):
    """A gallery of five colors, with a threshold that was fitted on the other three and lies between both kinds."""
    vectors = np.asarray(embedder(pictures.astype(np.float32)))
    index = Index(
        vectors[:25], metadata=[{"label": n // 5} for n in range(25)], fingerprint=export.fingerprint(embedder)
    )
    made = retrieval.calibrate(vectors, np.arange(40) // 5, target=0.3, bound="point", resamples=20)
    index.decision = dataclasses.replace(made, threshold=0.99)
    return Gallery(index), vectors


def test_matches_say_whether_they_count(decided):
    gallery, vectors = decided
    known, noise = gallery.search(vectors[:1], 8), gallery.search(-vectors[:1], 8)
    assert known[0]["accepted"] is True and known[-1]["accepted"] is False
    assert [match["accepted"] for match in noise] == [False] * 8
    assert 0 <= noise[0]["probability"] <= known[0]["probability"] <= 1
    assert "accepted" in gallery.neighbors(0, 3)[0]


def test_without_a_decision_nothing_is_said(gallery):
    assert not {"accepted", "probability"} & set(gallery.neighbors(0, 1)[0])

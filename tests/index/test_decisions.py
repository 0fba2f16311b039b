"""The decision of an index: kept with it, used by its searches and votes."""

import numpy as np
import pytest

from tests.retrieval.test_decisions import classes_of
from tf_detreg import retrieval
from tf_detreg.index import Index


@pytest.fixture(scope="module")
def catalogue():
    """An index of 40 classes with a decision that was fitted on other classes."""
    points, classes = classes_of(80, noise=0.5)
    half = classes < 40
    decision = retrieval.calibrate(points[~half], classes[~half], target=0.05, fingerprint="m", resamples=100)
    metadata = [{"label": f"class {c}"} for c in classes[half]]
    index = Index(points[half], metadata=metadata, fingerprint="m")
    return index, decision, points, classes


def test_a_search_says_what_is_accepted(catalogue, tmp_path):
    index, decision, points, classes = catalogue
    unknown, known = points[classes >= 40], points[classes < 40]
    assert index.search(known, 3).accepted is None
    found = index.search(unknown, 3, decision=decision)
    np.testing.assert_array_equal(found.accepted, found.scores >= decision.threshold)
    np.testing.assert_allclose(found.probabilities, decision.probability(found.scores))
    assert found.accepted[:, 0].mean() <= 0.05  # these classes fitted it
    assert index.search(known, 2, decision=decision).accepted[:, 1].mean() > 0.9
    index.decision = decision
    index.save(tmp_path / "index")
    index.decision = None
    again = Index.load(tmp_path / "index")
    assert again.decision == decision
    np.testing.assert_array_equal(again.search(unknown, 3).accepted, found.accepted)
    row = next(again.search(known[:1], 1).rows())
    assert row["accepted"] is True and 0.9 < row["probability"] <= 1 and row["label"] == "class 0"
    other = Index(known, fingerprint="another")
    with pytest.raises(ValueError, match="another model"):
        other.search(known[:1], 1, decision=decision)


def test_an_index_classifies_or_says_unknown(catalogue):
    index, decision, points, classes = catalogue
    known, names = points[classes < 40], [f"class {c}" for c in classes if c < 40]
    found = index.classify(known, decision=decision)
    right = [label == name for label, name in zip(found.labels, names, strict=True)]
    assert np.mean(right) > 0.9 and (found.probabilities[right] > 0.5).all()
    unknown = index.classify(points[classes >= 40], decision=decision)
    assert np.mean([label is None for label in unknown.labels]) >= 0.95
    plain = index.classify(known[:1], k=4)
    assert plain.labels == ["class 0"] and plain.probabilities[0] == plain.votes[0] == 1.0
    with pytest.raises(ValueError, match="no 'kind' in its metadata"):
        index.classify(known[:1], label="kind")


@pytest.mark.parametrize("score", ["margin", "mean"])
def test_scores_of_a_whole_query_decide_on_all_its_matches(catalogue, score):
    index, _, points, classes = catalogue
    decision = retrieval.calibrate(
        points[classes >= 40], classes[classes >= 40], target=0.05, score=score, resamples=20
    )
    found = index.search(points[classes >= 40], 3, decision=decision)
    assert found.accepted.shape == (480, 3) and found.scores.shape == (480, 3)
    assert (found.accepted == found.accepted[:, :1]).all() and found.accepted.mean() <= 0.1
    with (
        pytest.raises(ValueError, match="no 'label' in its metadata")
        if score == "margin"
        else pytest.raises(ValueError, match="larger than the gallery")
    ):
        Index(points[:40]).search(points[:2], 50 if score == "mean" else 3, decision=decision)


def test_a_score_that_an_index_cannot_compute_is_refused(catalogue):
    index, _, points, classes = catalogue
    decision = retrieval.calibrate(points, classes, target=0.05, score="normalized", resamples=20)
    with pytest.raises(ValueError, match="an index cannot compute"):
        index.search(points[:1], 1, decision=decision)


def test_a_vote_by_hand():
    index = Index([[1, 0], [1, 0.2], [1, 0.3], [0, 1]], metadata=[{"label": name} for name in ("a", "b", "b", "c")])
    assert index.classify([1, 0.0], k=3).labels == ["b"]
    assert index.classify([1, 0.0], k=2).labels == ["a"]  # one vote each: the nearest
    np.testing.assert_allclose(index.classify([1, 0.0], k=3).votes, [2 / 3])

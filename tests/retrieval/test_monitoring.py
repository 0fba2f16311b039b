"""Verdicts at their limits, what a decision says, and what a vote counts: by numbers that are counted by hand."""

import dataclasses
import json

import numpy as np
import pytest

from tf_detreg import datasets
from tf_detreg.retrieval import deciding, embedding, monitoring
from tf_detreg.retrieval.decision import Decision, Measurement
from tf_detreg.retrieval.matches import Matches

MEASURED = Measurement(7, 70, 60, 0.0125, (0.005, 0.025), 0.9, 0.05, 0.0125, ((0.5, 0.5, 1.0),))
DECISION = Decision(
    score="nearest",
    threshold=0.5,
    target=0.01,
    bound="upper",
    confidence=0.95,
    interval=(0.002, 0.03),
    fitted=MEASURED,
    class_names=("a", "b"),
    scores=(0.0, 0.5, 1.0),
    probabilities=(0.0, 0.25, 1.0),
    unknown_share=0.5,
    quantiles=tuple(np.linspace(0.1, 0.9, 9).tolist()),
    accepts=0.9,
    notes=("first", "second"),
)


def spread(count):
    """Scores as the calibration had them: as many in each tenth."""
    return (np.arange(count) + 0.5) / count


def test_scores_from_the_threshold_on_are_accepted_and_probabilities_are_straight_between_knots():
    below = np.nextafter(0.5, 0)
    assert DECISION.accepted(np.array([below, 0.5, 0.6])).tolist() == [False, True, True]
    assert DECISION.probability(np.array([-1, 0.25, 0.75, 2])).tolist() == [0.0, 0.125, 0.625, 1.0]


def test_a_hundred_queries_are_enough_for_a_verdict():
    assert monitoring.monitor(DECISION, spread(99)).verdict == "too few queries"
    found = monitoring.monitor(dataclasses.replace(DECISION, threshold=0.25), spread(100))
    assert (found.verdict, found.queries, found.unknown) == ("stable", 100, 0.25)
    assert found.unknown_at_calibration == pytest.approx(0.1) and found.stability == pytest.approx(0, abs=1e-3)
    low, high = found.interval
    assert 0.16 < low < 0.25 < high < 0.36


@pytest.mark.parametrize(
    ("stability", "verdict"),
    [(0.0999, "stable"), (0.1, "watch"), (0.2499, "watch"), (0.25, "fit again"), (9.0, "fit again")],
)
def test_verdicts_change_at_a_tenth_and_a_quarter(stability, verdict):
    assert monitoring._verdict(100, stability) == verdict


def test_the_stability_index_is_the_sum_over_the_tenths():
    scores = np.concatenate([spread(150)[:75], spread(50)])
    counts = np.histogram(scores, [-1, *DECISION.quantiles, 2])[0]
    shares = (counts + 0.5) / (len(scores) + 5)
    found = monitoring.monitor(DECISION, scores)
    assert found.stability == pytest.approx(((shares - 0.1) * np.log(shares / 0.1)).sum())
    # Equal quantiles are one border: nothing lies between them.
    twice = dataclasses.replace(DECISION, quantiles=(0.1, 0.5, 0.5, 0.5, 0.9))
    shares = (np.array([2, 8, 8, 2]) + 0.5) / 22
    expected = np.array([1, 1, 3, 1]) / 6
    scores = np.concatenate([np.full(2, 0.05), np.full(8, 0.3), np.full(8, 0.6), np.full(2, 0.95)])
    found = monitoring.monitor(twice, scores)
    assert found.stability == pytest.approx(((shares - expected) * np.log(shares / expected)).sum())


def test_what_is_said_of_new_queries():
    drift = monitoring.Drift(1234, 0.12345, 0.25, (0.2, 0.31), 0.1, "watch")
    assert drift.summary() == (
        "1,234 queries. Population stability index 0.123 (watch). Not in the catalog: 25.0 % (20.0 – 31.0), of known "
        "queries at calibration 10.0 %. The scores have moved a little; look again soon."
    )
    assert json.loads(drift.to_json())["interval"] == [0.2, 0.31]
    few = dataclasses.replace(drift, verdict="too few queries").summary()
    assert few.endswith("Too few queries to say anything: give 100 or more.")
    for scores in (np.zeros((2, 2)), [], ["a"], [np.nan]):
        with pytest.raises(ValueError, match="`scores` must be finite numbers"):
            monitoring.monitor(DECISION, scores)


def test_what_is_said_of_a_decision():
    start = "A match counts from score 0.5000 (nearest) on. Target: at most 1 % of queries whose class is not in the "
    end = "expected of unseen classes: 0.20 – 3.00 %."
    draws = " in 95 of 100 draws of as many classes"
    assert DECISION.summary() == f"{start}gallery are accepted{draws}; {end}"
    assert dataclasses.replace(DECISION, bound="point").summary() == f"{start}gallery are accepted; {end}"
    text = DECISION.to_markdown()
    assert "Not measured on other classes." in text and text.endswith("\nNote: first\n\nNote: second\n")
    assert MEASURED.sentence() == (
        "7 classes, 70 images, galleries of 60: accepts 1.25 % (0.50 – 2.50) of queries of unknown classes; of known "
        "ones 90.00 % rightly and 5.00 % with a wrong class; calibration error of the probabilities 1.25 points."
    )
    assert "On other classes: 7 classes" in dataclasses.replace(DECISION, test=MEASURED).to_markdown()
    assert Decision.from_dict(DECISION.to_dict()) == DECISION


def matches(labels, accepted=None, probabilities=None):
    count = len(labels)
    return Matches(
        [list(range(count))],
        np.linspace(0.9, 0.1, count)[None],
        np.arange(count)[None],
        [[{"label": label} for label in labels]],
        "exact",
        1.0,
        None,
        None if accepted is None else np.array([accepted]),
        None if probabilities is None else np.array([probabilities]),
    )


def test_accepted_matches_vote_and_the_nearest_settles_equal_votes():
    found = deciding.vote(matches("abba"), "label")
    assert (found.labels, found.votes.tolist(), found.probabilities.tolist()) == (["a"], [0.5], [0.5])
    found = deciding.vote(matches("abbc"), "label")
    assert (found.labels, found.votes.tolist()) == (["b"], [0.5])
    chances = [0.9, 0.8, 0.7, 0.1]
    found = deciding.vote(matches("abbc", [True, True, True, False], chances), "label")
    assert (found.labels, found.votes.tolist(), found.probabilities.tolist()) == (["b"], [0.5], [0.8])
    found = deciding.vote(matches("abbc", [False] * 4, chances), "label")
    assert (found.labels, found.votes.tolist(), found.probabilities.tolist()) == ([None], [0.0], [0.9])
    with pytest.raises(ValueError, match="no 'kind' in its metadata"):
        deciding.vote(matches("ab"), "kind")


def test_as_many_matches_are_asked_for_as_the_score_needs():
    depth = deciding.trials.DEPTH
    mean = dataclasses.replace(DECISION, score="mean")
    assert deciding.depth(None, 3, 1000) == deciding.depth(DECISION, 3, 1000) == 3
    assert deciding.depth(mean, 3, 1000) == depth and deciding.depth(mean, depth + 1, 1000) == depth + 1
    assert deciding.depth(mean, 3, 5) == 5 and deciding.depth(mean, 7, 5) == 7
    with pytest.raises(ValueError, match="which an index cannot compute"):
        deciding.depth(dataclasses.replace(DECISION, score="density"), 3, 1000)


def test_matches_are_judged_and_cut_to_those_asked_for():
    found = deciding.decided(matches("abcd"), DECISION, 2)
    assert found.ids == [[0, 1]] and found.scores.shape == found.positions.shape == (1, 2)
    assert found.accepted.tolist() == [[True, True]] and len(found.metadata[0]) == 2
    assert found.probabilities[0] == pytest.approx(DECISION.probability(np.array([0.9, 0.9 - 0.8 / 3])))
    mean = dataclasses.replace(DECISION, score="mean", neighbors=4, threshold=0.5001)
    assert deciding.decided(matches("abcd"), mean, 2).accepted.tolist() == [[False, False]]


def test_no_image_is_embedded(monkeypatch):
    images = datasets.ImageSet([0, 0], ["a"], np.zeros((2, 2, 2, 3), np.uint8), name="photos")
    with pytest.raises(ValueError, match="hold an image"):
        embedding.embed(None, images.subset([]))
    monkeypatch.setattr(embedding, "embed_parts", lambda *given: iter(()))
    with pytest.raises(ValueError, match="Not one of the 2 images of photos can be read"):
        embedding.embed(None, images)


def test_what_is_embedded_comes_with_labels_and_groups_of_its_rows(monkeypatch):
    images = datasets.ImageSet([0, 1, 2, 3], list("abcd"), np.zeros((4, 2, 2, 3), np.uint8), groups=[7, 8, 9, 10])
    asked = []

    def parts(*given):
        asked.append(given)
        yield np.ones((2, 2)), np.array([0, 2])
        yield np.zeros((1, 2)), np.array([3])

    monkeypatch.setattr(embedding, "embed_parts", parts)
    found = embedding.embed("model", images, 5, False, "Title")
    assert asked == [("model", images, 5, False, "Title")]
    assert found.embeddings.dtype == np.float32 and found.embeddings[:, 0].tolist() == [1, 1, 0]
    assert (found.indices.tolist(), found.labels.tolist(), found.groups.tolist()) == ([0, 2, 3], [0, 2, 3], [7, 9, 10])

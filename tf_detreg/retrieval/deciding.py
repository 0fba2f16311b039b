"""What a decision says about the matches of a search, and a vote among them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tf_detreg.retrieval import trials
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.matches import Matches

SCORES = ("nearest", "margin", "mean")  # which an index can compute from the matches alone


@dataclasses.dataclass(frozen=True)
class Classified:
    """The class of each query, by a vote among its nearest items.

    Args:
        labels: Q class names; None where the query is of no class of the index.
        probabilities: (Q,) with a decision, the probability of the class's best match; without, the share of the votes.
        votes: (Q,) share of the k nearest items that are of the class.
    """

    labels: list[object | None]
    probabilities: np.ndarray
    votes: np.ndarray


def depth(decision: Decision | None, k: int, items: int) -> int:
    """Return how many matches are needed to show k of them and to decide.

    Raises:
        ValueError: If an index cannot compute the decision's score.
    """
    if decision is None or decision.score == "nearest":
        return k
    if decision.score not in SCORES:
        raise ValueError(
            f"`decision` is on the score {decision.score!r}, which an index cannot compute, only {', '.join(SCORES)}. "
            'Calibrate with score="nearest".'
        )
    return min(max(k, trials.DEPTH), max(k, items))  # a k that is too large is refused by the search


def decided(matches: Matches, decision: Decision, k: int) -> Matches:
    """Return the first k matches of each query with probabilities, and whether they are accepted.

    With the score `"nearest"` each match is judged by its own cosine; with the others all matches of a query are judged
    together.

    Raises:
        ValueError: If the score is `"margin"` and an item has no `label` in its metadata.
    """
    scores = matches.scores
    if decision.score != "nearest":
        labels = np.zeros(scores.shape) if decision.score == "mean" else _codes(matches)
        one = trials.query_scores(scores, labels, (decision.score,), decision.neighbors)[decision.score]
        scores = np.broadcast_to(one[:, None], scores.shape)
    return dataclasses.replace(
        matches,
        ids=[row[:k] for row in matches.ids],
        scores=matches.scores[:, :k],
        positions=matches.positions[:, :k],
        metadata=[row[:k] for row in matches.metadata],
        accepted=decision.accepted(scores[:, :k]),
        probabilities=decision.probability(scores[:, :k]),
    )


def vote(matches: Matches, label: str) -> Classified:
    """Return the class that most of each query's accepted matches have; of equal votes, the one with the nearest item.

    Args:
        matches: Of a search; without a decision all of them vote.
        label: The metadata that names an item's class.

    Raises:
        ValueError: If an item has no such metadata.
    """
    labels, probabilities, votes = [], [], []
    for query, items in enumerate(matches.metadata):
        names = _names(items, label)
        voting = [n for n in range(len(names)) if matches.accepted is None or matches.accepted[query, n]]
        counts: dict[object, list[int]] = {}
        for n in voting:
            counts.setdefault(names[n], []).append(n)
        winner = max(counts, key=lambda name: (len(counts[name]), -counts[name][0]), default=None)
        share = len(counts[winner]) / len(names) if voting else 0.0
        labels.append(winner)
        votes.append(share)
        known = matches.probabilities
        probabilities.append(share if known is None else float(known[query, counts[winner][0] if voting else 0]))
    return Classified(labels, np.asarray(probabilities), np.asarray(votes))


def _codes(matches: Matches) -> np.ndarray:
    """Return (Q, K) class numbers of the matches."""
    names = [name for items in matches.metadata for name in _names(items, "label")]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names]).reshape(matches.scores.shape)


def _names(items: Sequence[dict[str, object]], label: str) -> list[object]:
    if any(label not in item for item in items):
        raise ValueError(f"An item of the index has no {label!r} in its metadata, which names its class.")
    return [item[label] for item in items]
